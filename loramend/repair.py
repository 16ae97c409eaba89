"""The one pipeline behind command line and worker: adapter and steps in, repaired adapter and report out."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from loramend.adapter.capability import subspace_blockers
from loramend.adapter.model import Adapter, Update
from loramend.adapter.write import as_written
from loramend.bank.describe import describe
from loramend.bank.file import OpenBank
from loramend.bank.triage import triage, without_bank
from loramend.contracts.data import EvaluationSpec
from loramend.contracts.data_steps import CleanSubspaceStep, RoraStep
from loramend.contracts.errors import AdapterError, ReferenceModelError
from loramend.contracts.evidence import TrainingReport
from loramend.contracts.job import OnProgress, Phase, Progress, silent
from loramend.contracts.report import ModuleReport, PlaceboComparison, Report, StepOutcome, Totals
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import (
    CsuStep,
    RestoreStep,
    SafeLoraStep,
    Step,
    SubspaceStep,
    needs_of,
)
from loramend.contracts.triage import Triage
from loramend.data.examples import Corpus
from loramend.evaluation.repaired import evaluate_repair
from loramend.evaluation.run import check_evaluation
from loramend.methods.base import Context, Method, Outcome
from loramend.methods.clean_subspace import clean_subspace
from loramend.methods.controls import compare
from loramend.methods.registry import METHODS
from loramend.methods.rora import rora
from loramend.reference.models import References
from loramend.reference.open import open_references
from loramend.report.answers import with_summary
from loramend.report.measure import Measured, measure
from loramend.report.provenance import Stopwatch
from loramend.report.summary import adapter_summary, data_read
from loramend.report.words import caveats
from loramend.spectrum.factored import cosine, distance, norm
from loramend.training.open import check_text, open_session
from loramend.training.session import Checkpoints, Session

SUBSPACE_STEPS = (CsuStep, SafeLoraStep, RestoreStep)
"""Steps that are set beside their placebo wherever they stand; clean_subspace is where it ends the repair."""


def inspect(
    adapter: Adapter,
    references: References | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_progress: OnProgress = silent,
    source: Mapping[str, str] | None = None,
    bank: OpenBank | None = None,
) -> Report:
    """Measure an adapter and change nothing.

    references  base and aligned models to measure against, if any
    on_progress called after each module; an exception it raises ends the work and passes through
    source      where the adapter came from, for the report
    bank        other adapters to set this one beside, as it came
    Raises ReferenceModelError where a reference does not fit the adapter.
    """
    watch = Stopwatch()
    references = references or open_references(None, None)
    _check(adapter, (), references)
    measured = measure(
        adapter, references, split=_split_of(()), on_module=_ticker(adapter, "measure", 1, on_progress)
    )
    modules = [_module_report(update, measured[name]) for name, update in adapter.updates.items()]
    report = Report(
        kind="inspect",
        summary=[],
        adapter=adapter_summary(adapter),
        totals=_totals(adapter),
        modules=modules,
        triage=_triage(adapter, measured, bank),
        references=references.read(),
        caveats=caveats(adapter.passthrough, ()),
        provenance=watch.provenance(device=torch.device(device), seed=seed, source=source or {}),
    )
    return with_summary(report)


def repair(
    adapter: Adapter,
    steps: Sequence[Step],
    references: References | None = None,
    *,
    threat: Threat = "poisoned_adapter",
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_progress: OnProgress = silent,
    source: Mapping[str, str] | None = None,
    corpus: Corpus | None = None,
    evaluation: EvaluationSpec | None = None,
    model: Path | None = None,
    checkpoints: Checkpoints | None = None,
    bank: OpenBank | None = None,
) -> tuple[Adapter, Report]:
    """Take the steps in order and report what changed; the adapter given is not touched.

    The result is rounded to the dtype it will be written in, and the report's numbers after the repair are
    those of the rounded one. Arguments as for `inspect`, and

    corpus      text to learn from and to be measured on
    evaluation  what to measure before and after; None with clean data given measures on its held-out share
    model       the base model's folder with config and tokenizer: steps that learn from text, and an
                evaluation, run it
    checkpoints where training leaves its state, to go on after its process died

    Raises ReferenceModelError `reference_required` where a step needs a model that was not given, DataError
    `data_required` where one needs text, and whatever the methods raise.
    """
    watch = Stopwatch()
    references = references or open_references(None, None)
    _check(adapter, steps, references)
    corpus = corpus or Corpus()
    check_text(steps, corpus, evaluation, model)
    context = Context(references=references, device=torch.device(device), seed=seed)
    split = _split_of(steps)
    before = measure(adapter, references, split=split, on_module=_ticker(adapter, "measure", 2, on_progress))

    outcomes: dict[str, list[StepOutcome]] = {name: [] for name in adapter.updates}
    placebo: list[PlaceboComparison] = []
    draws: list[Adapter] = []
    current = adapter
    on_step = _ticker(adapter, "repair", len(steps), on_progress)
    compared = [index for index in range(len(steps)) if _has_placebo(steps, index)]
    on_control = _ticker(adapter, "controls", len(compared), on_progress)
    session = open_session(
        adapter,
        steps,
        corpus,
        evaluation,
        model,
        threat=threat,
        seed=seed,
        device=context.device,
        on_progress=on_progress,
        checkpoints=checkpoints,
    )
    if session is not None and evaluation is not None:
        check_evaluation(session.host, corpus, evaluation)
    training: list[TrainingReport] = []
    for index, step in enumerate(steps):
        if isinstance(step, RoraStep):
            assert session is not None, "check_text saw to it"
            taken = rora(current, step, context, session, index)
            changes, repaired = list(taken.outcomes), taken.adapter
            training.append(taken.report)
        else:
            method = _method(step, session)
            changes = []
            for outcome in method(current, step, context):
                changes.append(outcome)
                on_step(outcome.name)
            repaired = current.with_updates({outcome.name: outcome.update for outcome in changes})
        for outcome in changes:
            outcomes[outcome.name].append(_step_outcome(step, current.updates[outcome.name], outcome))
        if index in compared:
            assert isinstance(step, (*SUBSPACE_STEPS, CleanSubspaceStep))
            values = {outcome.name: outcome.values for outcome in changes}
            beside = compare(
                index,
                step,
                current.updates,
                repaired.updates,
                values,
                context,
                on_control,
                # Behaviour is that of the whole repair: earlier steps' draws say nothing of it.
                keep=session is not None and index == len(steps) - 1,
            )
            placebo.append(beside.comparison)
            draws = [as_written(current.with_updates(updates)) for updates in beside.draws]
        current = repaired

    current = as_written(current)
    after = measure(
        current,
        references,
        split=split,
        on_module=_ticker(adapter, "measure", 2, on_progress, done=len(adapter.updates)),
    )
    modules = [
        _module_report(update, before[name], after[name], outcomes[name])
        for name, update in adapter.updates.items()
    ]
    evaluated = None
    if session is not None:
        like = next((step for step in steps if isinstance(step, RoraStep)), None)
        evaluated = evaluate_repair(session, current, corpus, evaluation, like, draws)
    triaged = _triage(adapter, before, bank)
    report = Report(
        kind="repair",
        threat=threat,
        summary=[],
        adapter=adapter_summary(adapter),
        steps=list(steps),
        totals=_totals(adapter, current),
        modules=modules,
        triage=triaged,
        placebo=placebo,
        training=training,
        evaluation=evaluated,
        data=data_read(corpus),
        references=references.read(),
        caveats=caveats(adapter.passthrough, steps, threat, evaluated),
        provenance=watch.provenance(device=context.device, seed=seed, source=source or {}),
    )
    return current, with_summary(report)


def _triage(adapter: Adapter, measured: Mapping[str, Measured], bank: OpenBank | None) -> Triage:
    if bank is None:
        return without_bank()
    return triage(describe(adapter, {name: found.spectrum for name, found in measured.items()}), bank)


def _has_placebo(steps: Sequence[Step], index: int) -> bool:
    """Whether a step is set beside the same step on random subspaces."""
    last = index == len(steps) - 1
    return isinstance(steps[index], SUBSPACE_STEPS) or (last and isinstance(steps[index], CleanSubspaceStep))


def _method(step: Step, session: Session | None) -> Method[Any]:
    """The step's method, with the session in hand where it runs the model."""
    if step.text is None:
        return METHODS[step.type]
    assert session is not None, "check_text saw to it"
    return partial(clean_subspace, session=session)


def _check(adapter: Adapter, steps: Sequence[Step], references: References) -> None:
    """What can be refused before any weight is read."""
    have = {"base": references.has_base, "aligned": references.has_aligned}
    for need in ("base", "aligned"):
        if need in needs_of(list(steps)) and not have[need]:
            asking = next(step.type for step in steps if need in step.needs)
            raise ReferenceModelError(
                "reference_required",
                f"Step {asking} needs the {need} model: give `{need}`.",
                where=f"/{need}",
            )
    blockers = subspace_blockers(adapter.features)
    asking_steps = [step.type for step in steps if step.needs]
    if blockers and asking_steps:
        raise AdapterError(
            "config_unsupported",
            f"{blockers[0]}: step {asking_steps[0]} cannot be taken here; steps that need no model (shrink, "
            "random_subspace) can.",
            where="adapter_config.json",
        )
    if blockers and any(have.values()):
        raise AdapterError(
            "config_unsupported",
            f"{blockers[0]}: the adapter cannot be measured against a model. Leave out `base` and `aligned`.",
            where="adapter_config.json",
        )
    references.check(adapter.updates.values())


def _ticker(
    adapter: Adapter, phase: Phase, passes: int, on_progress: OnProgress, done: int = 0
) -> Callable[[str], None]:
    """A callback that counts modules over `passes` passes and tells `on_progress`."""
    total = len(adapter.updates) * passes

    def tick(name: str) -> None:
        nonlocal done
        done += 1
        on_progress(Progress(phase=phase, done=min(done, total), total=total, detail=name))

    return tick


def _split_of(steps: Sequence[Step]) -> SubspaceStep:
    """Which displacement subspace the energy split is taken over: the first subspace step's, or csu's
    default."""
    return next((step for step in steps if isinstance(step, SubspaceStep)), CsuStep())


def _step_outcome(step: Step, before: Update, outcome: Outcome) -> StepOutcome:
    after = outcome.update
    norm_before, norm_after = float(norm(before)), float(norm(after))
    return StepOutcome(
        type=step.type,
        applied=outcome.applied,
        reason=outcome.reason,
        norm_before=norm_before,
        norm_after=norm_after,
        distance=float(distance(before, after)) / norm_before if norm_before and outcome.applied else 0.0,
        cosine=float(cosine(before, after)) if norm_before and norm_after else None,
        rank_before=before.rank,
        rank_after=after.rank,
        truncation_loss=outcome.truncation_loss,
        values=dict(outcome.values),
    )


def _module_report(
    update: Update, before: Measured, after: Measured | None = None, steps: Sequence[StepOutcome] = ()
) -> ModuleReport:
    return ModuleReport(
        name=update.name,
        kind=update.kind,
        shape=update.shape,
        rank=update.rank,
        scale=update.scale,
        dtype=str(update.dtype).removeprefix("torch."),
        before=before.spectrum,
        after=after.spectrum if after else None,
        robustness=before.robustness,
        base_before=before.base,
        base_after=after.base if after else None,
        energy_before=before.energy,
        energy_after=after.energy if after else None,
        steps=list(steps),
    )


def _totals(adapter: Adapter, repaired: Adapter | None = None) -> Totals:
    updates = adapter.updates
    before = math.fsum(float(norm(update)) ** 2 for update in updates.values())
    totals = Totals(
        modules=len(updates),
        parameters=sum(update.A.numel() + update.B.numel() for update in updates.values()),
        norm_before=math.sqrt(before),
    )
    if repaired is None:
        return totals
    after = math.fsum(float(norm(update)) ** 2 for update in repaired.updates.values())
    moved = math.fsum(
        float(distance(update, repaired.updates[name])) ** 2 for name, update in updates.items()
    )
    return totals.model_copy(
        update={"norm_after": math.sqrt(after), "distance": math.sqrt(moved / before) if before else 0.0}
    )
