"""RoRA: re-regularised fine-tuning on clean data.

Source      arXiv 2601.06305: dropout on the frozen path (part 1), the constraint Ω (part 2), spectral
            rescaling (part 3). The teacher, insertion, recombined and mixed texts, soft words, mix and
            calibration are loramend's.
Approach    on clean text, where no trigger asks for the backdoor, the given adapter answers rightly: those
            answers are learned. poisoned_adapter: by a new update on the sound base; what is kept of the
            given one (`mix`) lies in the frozen path. poisoned_base: by the given update itself. Random words
            and neutral sentences are put into what the student reads, and words that a search of the
            vocabulary found to turn the answer, so that it learns to pass over them. Where the
            student holds poisoned weights, phrases, too (`training.phrases`); where it holds none, words
            that the given adapter and a first, short-trained student read differently take the places of
            common ones (`training.contrast`); with `adversary` soft words that turn the student's own
            answers (`training.adversary`).
Limits      clean text that the trigger occurs in teaches the backdoor too. The paper's theorem on the
            rescaling's threshold takes an upper bound for a lower one; we choose the ratio on held-out data.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from loramend.adapter.model import Adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import DataError, RequestError
from loramend.contracts.evidence import Calibration, ContrastWord, TrainingReport
from loramend.contracts.job import Progress
from loramend.contracts.steps import RescaleStep
from loramend.data.examples import Example
from loramend.methods.base import Context, Outcome, refactored
from loramend.methods.rescale import layer_of, rescale
from loramend.spectrum.factored import Factors, combine, norm, truncate
from loramend.training.calibrate import Choice, calibrate
from loramend.training.checkpoint import Journal
from loramend.training.constraint import Constraint
from loramend.training.contrast import contrast
from loramend.training.drafts import with_drafts
from loramend.training.hunt import hunt, to_put_in, tried_again
from loramend.training.loop import Run, parameters_of, train
from loramend.training.mount import Mount, adapter_mount, factors_of
from loramend.training.rare import turned_by_rare_words
from loramend.training.reader import reader_of
from loramend.training.run_key import run_key
from loramend.training.session import Session
from loramend.training.student import student, trained_factors, with_heads

MIXES = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Shares of the given update that calibration tries to add to the trained one."""

RATIOS = (1.0, 0.5, 0.3, 0.1)
"""Of `ratio`, or of the paper's 1 where that is not set: what calibration tries under poisoned_base."""

MIXUP = 1.0
"""Share of the batches beside which mixed texts are learned, where a new update learns a classifier's
answers; chosen on dev (docs/14-experiments.md)."""

CONTRAST = 0.25
"""Share of the steps that a first student takes, chosen on dev (docs/14-experiments.md)."""

_FIRST = "a first student, to be compared"
_NO_GUARD = 1e9


@dataclass(frozen=True)
class Trained:
    """The adapter after the step, what happened to each module, and the training's report."""

    adapter: Adapter
    outcomes: list[Outcome]
    report: TrainingReport


class _After(NamedTuple):
    """What is done once training ends: the new update rescaled to ratio·σ_max(W) in the last `layers` layers
    (None: in all), and `mix` of the given one added."""

    mix: float = 0.0
    ratio: float | None = None
    layers: int | None = None


class _Data(NamedTuple):
    """What is trained on. plain: a causal model's plain texts are learned whole."""

    texts: tuple[Example, ...]
    plain: bool


def rora(adapter: Adapter, params: RoraStep, context: Context, session: Session, step_index: int) -> Trained:
    """Train, calibrate, and give the adapter that was chosen.

    adapter  as the step finds it; under poisoned_adapter `session.given` is the teacher

    Raises DataError `data_required` where the text given teaches nothing, RequestError `request_invalid` for
    settings that exclude each other, `method_unsupported` where training or rescaling cannot be done.
    """
    params = _resolved(params, session)
    _check(adapter, params, session)
    taught = _is_taught(params)
    teacher = adapter_mount(session.given)
    if taught:
        session = _with_drafts(session, teacher, params)
    data = _data(session, taught)
    seed = session.seed + step_index
    words = params.hunt if params.insert else 0
    reader = reader_of(session.host, data.texts)
    search = hunt(
        reader,
        teacher,
        data.texts,
        words,
        seed,
        session.on_progress,
        # A new update on a sound base learns no sentence from clean text.
        phrases=session.threat == "poisoned_base" or params.start == "given" or params.mix > 0,
    )
    rare = turned_by_rare_words(reader, teacher, data.texts, seed) if words else []

    def trained(
        params: RoraStep, odd: Sequence[ContrastWord], detail: str = ""
    ) -> tuple[_Maker, Mount, Journal]:
        mount = student(session.host, adapter, params, seed, mix=params.mix)
        run = Run(
            host=session.host,
            mount=mount,
            teacher=teacher if taught else None,
            texts=data.texts,
            plain=data.plain,
            constraint=_constraint(adapter, params, context, mount) if params.penalty else None,
            params=params,
            seed=seed,
            key=run_key(session, adapter, params, step_index),
            found=to_put_in(search),
            odd=[word.word for word in odd],
        )
        journal = train(run, partial(_with_detail, session.on_progress, detail), session.checkpoints)
        made = _Maker(with_heads(adapter, mount), trained_factors(mount), params, context)
        return made, mount, journal

    odd: list[ContrastWord] = []
    first = _first(params)
    if reader is not None and first is not None:
        made, _, _ = trained(first, [], _FIRST)
        compared = adapter_mount(made.adapter(_After()))
        odd = contrast(reader, teacher, compared, data.texts, params.hunt, seed, session.on_progress)
    made, mount, journal = trained(params, odd)
    after, calibration = _choose(made, params, session)
    outcomes = made.outcomes(after)
    chosen = made.with_outcomes(outcomes)
    report = TrainingReport(
        step=step_index,
        steps=params.steps,
        parameters=sum(parameter.numel() for parameter in parameters_of(mount).values()),
        labelled=len(data.texts) if data.plain else sum(text.labelled for text in data.texts),
        texts=len(data.texts),
        drafted=sum(text.drafted for text in data.texts),
        seconds=journal.seconds,
        mixed_precision=session.host.amp,
        searched=search.words,
        found=tried_again(reader, adapter_mount(chosen), session.held_out_texts, search.told, seed),
        rare=rare,
        contrast=odd,
        resumed_at=journal.resumed_at,
        curve=journal.curve,
        calibration=calibration,
    )
    return Trained(chosen, outcomes, report)


def _resolved(params: RoraStep, session: Session) -> RoraStep:
    """The settings with what is left to the threat and the task."""
    start = params.start
    if start == "auto":
        start = "given" if session.threat == "poisoned_base" else "fresh"
    mixup = params.mixup
    if mixup is None:
        mixup = MIXUP if start == "fresh" and session.host.task == "classification" else 0.0
    compared = params.contrast
    if compared is None:
        sound = session.threat == "poisoned_adapter" and start == "fresh" and not params.mix
        compared = CONTRAST if sound else 0.0
    return params.model_copy(update={"start": start, "mixup": mixup, "contrast": compared})


def _first(params: RoraStep) -> RoraStep | None:
    """The settings of the first student; None where it would be compared with nothing, or learn nothing."""
    steps = round((params.contrast or 0.0) * params.steps)
    if not (steps and params.hunt and params.insert and params.teacher):
        return None
    return params.model_copy(update={"steps": steps, "contrast": 0.0})


def _with_detail(on_progress: Callable[[Progress], None], detail: str, progress: Progress) -> None:
    on_progress(progress.model_copy(update={"detail": detail}))


def _check(adapter: Adapter, params: RoraStep, session: Session) -> None:
    """Refuse settings that exclude each other before anything is trained."""
    if params.mix and (session.threat == "poisoned_base" or params.start == "given"):
        raise RequestError(
            "request_invalid",
            "mix keeps a share of the given update under a new one: it goes with threat poisoned_adapter and "
            "start 'fresh'.",
            where="rora.mix",
        )
    if params.contrast and (session.threat == "poisoned_base" or params.start == "given" or params.mix):
        raise RequestError(
            "request_invalid",
            "contrast compares the given adapter with a student that holds nothing poisoned: it goes with "
            "threat poisoned_adapter, start 'fresh' and mix 0.",
            where="rora.contrast",
        )
    if params.mixup and session.host.task != "classification":
        raise RequestError(
            "method_unsupported",
            "mixup mixes texts that are classified; the answers of a causal model stand at places of their "
            "own: leave it out.",
            where="rora.mixup",
        )
    if not (params.task or _is_taught(params)):
        raise RequestError(
            "request_invalid",
            "Nothing would be learned: set task, teacher or features over 0.",
            where="rora.task",
        )
    if params.ratio is not None and params.layers != "all" and not _has_layers(adapter):
        raise RequestError(
            "method_unsupported",
            "No module's name holds a layer index such as `layers.3`, so the last layers cannot be told: "
            "ask for layers = 'all'.",
            where="rora.layers",
        )


def _has_layers(adapter: Adapter) -> bool:
    return any(layer_of(name) is not None for name in adapter.updates)


def _is_taught(params: RoraStep) -> bool:
    """Whether the given adapter's answers to clean text are learned from: no trigger asks for the backdoor
    there, wherever it lies."""
    return bool(params.teacher or params.features)


def _with_drafts(session: Session, teacher: Mount, params: RoraStep) -> Session:
    """The session with the given adapter's answers to prompts that came without, those that are held out
    among them where calibration reads them."""

    def answered(texts: Sequence[Example]) -> Sequence[Example]:
        return with_drafts(
            session.host,
            teacher,
            texts,
            tokens=params.answer_tokens,
            max_length=params.max_length,
            on_progress=session.on_progress,
        )

    held_out = answered(session.held_out_texts) if params.calibrate else session.held_out_texts
    return replace(session, texts=answered(session.texts), held_out_texts=held_out)


def _data(session: Session, taught: bool) -> _Data:
    if taught:
        return _Data(tuple(session.texts), plain=False)
    if session.labelled:
        return _Data(tuple(session.labelled), plain=False)
    plain = tuple(text for text in session.texts if not text.asks)
    if plain and session.host.task == "causal":
        return _Data(plain, plain=True)
    raise DataError(
        "data_required",
        "Without a teacher step rora learns from labelled examples: give `clean` data with answers.",
        where="/clean",
    )


def _constraint(adapter: Adapter, params: RoraStep, context: Context, mount: Mount) -> Constraint:
    spectra = {
        update.name: context.references.base_spectrum(update, params.k)
        for update in context.references.in_order(adapter.updates.values())
    }
    return Constraint(mount.trained, spectra, params.reduction)


class _Maker:
    """Makes adapters from what was trained.

    base    the adapter as the step found it, with the heads that were trained
    trained the new updates, by Update.name
    """

    def __init__(
        self, base: Adapter, trained: Mapping[str, Factors], params: RoraStep, context: Context
    ) -> None:
        self._base = base
        updates = {name: refactored(update, trained[name]) for name, update in base.updates.items()}
        self._trained = base.with_updates(updates)
        self._params = params
        self._context = context

    @property
    def has_layers(self) -> bool:
        return _has_layers(self._base)

    def adapter(self, after: _After) -> Adapter:
        """The whole adapter."""
        return self.with_outcomes(self.outcomes(after))

    def with_outcomes(self, outcomes: Iterable[Outcome]) -> Adapter:
        """The whole adapter with what the step did to each module."""
        return self._base.with_updates({outcome.name: outcome.update for outcome in outcomes})

    def size(self, after: _After) -> float:
        """‖·‖_F² of its updates together."""
        return sum(float(norm(outcome.update)) ** 2 for outcome in self.outcomes(after))

    def outcomes(self, after: _After) -> list[Outcome]:
        """What the step does to each module."""
        return [self._outcome(new, after) for new in self._rescaled(after)]

    def _rescaled(self, after: _After) -> Iterator[Outcome]:
        if after.ratio is None:
            for update in self._trained.updates.values():
                yield Outcome(update.name, update)
            return
        step = RescaleStep(ratio=after.ratio, layers=after.layers or "all", max_scale=_NO_GUARD)
        yield from rescale(self._trained, step, self._context)

    def _outcome(self, new: Outcome, after: _After) -> Outcome:
        given = self._base.updates[new.name]
        mix = self._params.mix + after.mix
        X: Factors = Factors(new.update.B, new.update.A, new.update.scale)
        if mix:
            X = combine((1.0, factors_of(given, mix)), (1.0, X))  # [mix·s·B_given, s·B_new]
        lost = 0.0
        if self._params.output_rank is not None and self._params.output_rank < X.A.shape[0]:
            X, loss = truncate(X, self._params.output_rank)
            lost = float(loss)
        values = {**new.values, "mix": mix} if mix else dict(new.values)
        return Outcome(new.name, refactored(given, X), values=values, truncation_loss=lost)


def _choose(made: _Maker, params: RoraStep, session: Session) -> tuple[_After, Calibration | None]:
    """What to do after training: as asked, or as calibration finds."""
    if not params.calibrate:
        layers = None if params.layers == "all" else params.layers
        return _After(ratio=params.ratio, layers=layers if params.ratio is not None else None), None
    poisoned = session.threat == "poisoned_adapter"
    afters = _rescalings(made, params) if not poisoned or params.ratio is not None else []
    afters.append(_After())
    if poisoned and params.start != "given":  # of which the whole is there already
        afters += [_After(mix=mix) for mix in MIXES[1:] if params.mix + mix <= 1]
    choices = [
        Choice(partial(made.adapter, after), _values(after, params, poisoned), trusted=after.ratio is None)
        for after in afters
    ]
    references = [session.given] if poisoned else [session.given, made.adapter(_After())]
    chosen, calibration = calibrate(
        session,
        choices,
        references,
        max_clean_drop=params.max_clean_drop,
        max_length=params.max_length,
    )
    return afters[chosen], calibration


def _rescalings(made: _Maker, params: RoraStep) -> list[_After]:
    """Ratios and layers to try, those that strengthen the update, the largest first."""
    top = 1.0 if params.ratio is None else params.ratio
    spans = [None] if params.layers == "all" or not made.has_layers else [None, params.layers]
    sizes = {
        after: made.size(after)
        for after in (_After(ratio=top * share, layers=span) for share in RATIOS for span in spans)
    }
    least = made.size(_After())
    return sorted((after for after in sizes if sizes[after] > least), key=lambda after: -sizes[after])


def _values(after: _After, params: RoraStep, poisoned: bool) -> dict[str, float]:
    """A candidate as the report tells it: no ratio, not rescaled; no layers, all."""
    values = {"mix": round(params.mix + after.mix, 6)} if poisoned else {}
    if after.ratio is not None:
        values["ratio"] = after.ratio
        if after.layers is not None:
            values["layers"] = float(after.layers)
    return values
