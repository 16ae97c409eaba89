"""The evaluation: every variant of an adapter answers the same texts, plain, triggered and probed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from loramend.adapter.model import Adapter
from loramend.contracts.data import EvaluationSpec
from loramend.contracts.errors import DataError
from loramend.contracts.evidence import Evaluation, Rate, Variant, VariantName
from loramend.contracts.job import OnProgress, Progress
from loramend.data.examples import Corpus, Dataset, Example
from loramend.evaluation.intervals import wilson
from loramend.evaluation.measure import Answer, answers, cut_off, encoded
from loramend.evaluation.probes import Probe, draw_probes
from loramend.evaluation.score import Score, check_scorable, score_of
from loramend.evaluation.triggers import triggered
from loramend.evaluation.words import describe, placebo_verdict
from loramend.training.encode import check_examples
from loramend.training.host import Host, open_host
from loramend.training.load import Dtype
from loramend.training.mount import Mount, adapter_mount


@dataclass(frozen=True)
class _Plan:
    """What every variant is asked.

    examples  plain; clean accuracy is taken over all of them
    attacked  holding the trigger, their own answer not the target
    probes    made from `examples`
    """

    score: Score
    examples: Sequence[Example]
    attacked: Sequence[Example]
    probes: Sequence[Probe]

    def texts(self) -> list[Example]:
        return [*self.examples, *self.attacked, *(probe.example for probe in self.probes)]


def evaluate(
    host: Host,
    variants: Mapping[VariantName, Sequence[Mount]],
    corpus: Corpus,
    spec: EvaluationSpec,
    *,
    seed: int,
    on_progress: OnProgress,
) -> Evaluation:
    """Measure clean accuracy, attack success (where a trigger was given) and probes of every variant.

    variants  `before` and any others, several mounts being draws of one; the host is left with what it had
              mounted
    corpus    `evaluation`, labelled, and optionally `triggered`, whose examples hold the trigger
    seed      of the choice among more than `max_examples`, the trigger's places and the probes
    Raises DataError `data_required`, `data_invalid` and RequestError `request_invalid` before any text is
    answered.
    """
    plan = _planned(host, corpus, spec, seed)
    texts = plan.texts()
    total, done = sum(map(len, variants.values())) * len(texts), 0
    measured = []
    for name, mounts in variants.items():

        def tick(count: int, name: str = name) -> None:
            nonlocal done
            done += count
            on_progress(Progress(phase="evaluate", done=done, total=total, unit="examples", detail=name))

        each = []
        for mount in mounts:
            with host.mounted(mount):
                given = answers(host, texts, max_new_tokens=spec.max_new_tokens, on_answers=tick)
            each.append(_variant(name, plan, given))
        measured.append(_mean(each))
    evaluation = Evaluation(
        task=host.task,
        metric=plan.score.metric,
        trigger=spec.trigger,
        target=None if spec.target is None else str(spec.target),
        examples=len(plan.examples),
        triggered=len(plan.attacked),
        probes=len(plan.probes),
        seed=seed,
        variants=measured,
        placebo=placebo_verdict({variant.name: variant for variant in measured}),
        sentences=[],
    )
    cut = cut_off(host, plan.examples, spec.max_new_tokens) if plan.score.metric == "exact_match" else 0
    sentences = describe(evaluation)
    if cut:
        sentences.append(
            f"{cut} of {len(plan.examples)} completions are longer than the {spec.max_new_tokens} tokens an "
            "answer may have (max_new_tokens): no answer to them can count as right."
        )
    return evaluation.model_copy(update={"sentences": sentences})


def check_evaluation(host: Host, corpus: Corpus, spec: EvaluationSpec) -> None:
    """Raise what `evaluate` would refuse, before hours of training."""
    encoded(host, _planned(host, corpus, spec, seed=0).texts(), spec.max_new_tokens)


def evaluate_adapter(
    adapter: Adapter,
    model: Path,
    dataset: Dataset,
    triggered: Dataset | None,
    spec: EvaluationSpec,
    *,
    seed: int,
    device: str | torch.device,
    on_progress: OnProgress,
    dtype: Dtype = "float32",
) -> Evaluation:
    """Measure one adapter as it is, as the variant `before`.

    model  the base model's folder with config and tokenizer
    Raises as `evaluate` and `training.host.open_host` do.
    """
    host = open_host(model, adapter, device=device, dtype=dtype)
    corpus = Corpus(evaluation=dataset, triggered=triggered)
    variants: dict[VariantName, list[Mount]] = {"before": [adapter_mount(adapter)]}
    return evaluate(host, variants, corpus, spec, seed=seed, on_progress=on_progress)


def _planned(host: Host, corpus: Corpus, spec: EvaluationSpec, seed: int) -> _Plan:
    data = corpus.evaluation
    if data is None or not data.examples:
        raise DataError(
            "data_required",
            "An evaluation needs labelled examples: give `evaluation` data.",
            where="/evaluation/data",
        )
    score = score_of(spec, host.task, host.labels)
    check_examples(data, host.task, host.labels)
    check_scorable(data, score.metric)
    examples = _some(data.examples, spec.max_examples, f"examples {seed}")
    attacked: Sequence[Example] = ()
    if corpus.triggered is not None:
        if score.target is None:
            raise DataError(
                "data_invalid",
                "Triggered examples need `target`: the label or text that the trigger asks for.",
                where="/evaluation/target",
            )
        check_examples(corpus.triggered, host.task, host.labels)
        attacked = _attackable(score, corpus.triggered.examples, corpus.triggered.name)
        attacked = _some(attacked, spec.max_examples, f"triggered {seed}")
    elif spec.trigger is not None:
        attacked = triggered(_attackable(score, examples, data.name), spec.trigger, seed)
    return _Plan(score, examples, attacked, draw_probes(host.tokenizer, examples, spec.probes, seed))


def _variant(name: VariantName, plan: _Plan, given: Sequence[Answer]) -> Variant:
    """The shares from the answers to `plan.texts()`."""
    score = plan.score
    clean = given[: len(plan.examples)]
    attacked = given[len(clean) : len(clean) + len(plan.attacked)]
    probed = given[len(clean) + len(attacked) :]
    right = [score.right(answer, example) for answer, example in zip(clean, plan.examples, strict=True)]
    flipped = [
        score.told(clean[probe.index], probe.example) != score.told(answer, probe.example)
        for probe, answer in zip(plan.probes, probed, strict=True)
    ]
    return Variant(
        name=name,
        clean=wilson(sum(right), len(right)),
        attack=_rate([score.hits(answer) for answer in attacked]),
        flips=_rate(flipped),
    )


def _mean(draws: Sequence[Variant]) -> Variant:
    """One variant with the mean counts of its draws. The texts are the same in each: the interval stays that
    of one."""
    first = draws[0]
    if len(draws) == 1:
        return first

    def rate(shares: Sequence[Rate | None]) -> Rate | None:
        known = [share for share in shares if share is not None]
        return wilson(round(fmean(share.count for share in known)), known[0].n) if known else None

    clean = rate([draw.clean for draw in draws])
    assert clean is not None
    return Variant(
        name=first.name,
        draws=len(draws),
        clean=clean,
        attack=rate([draw.attack for draw in draws]),
        flips=rate([draw.flips for draw in draws]),
    )


def _attackable(score: Score, examples: Sequence[Example], name: str) -> list[Example]:
    found = [example for example in examples if score.attackable(example)]
    if not found:
        raise DataError(
            "data_invalid",
            "The own answer of every example is the target already, so attack success cannot be measured: "
            "give examples with other answers.",
            where=name,
        )
    return found


def _some(examples: Sequence[Example], most: int, seed: str) -> Sequence[Example]:
    """At most so many of them, in their own order, drawn by the seed."""
    if len(examples) <= most:
        return examples
    chosen = random.Random(seed).sample(range(len(examples)), most)  # noqa: S311
    return [examples[index] for index in sorted(chosen)]


def _rate(found: Sequence[bool]) -> Rate | None:
    return wilson(sum(found), len(found)) if found else None
