"""The controls learn from labels alone, keep their size, and stand beside a repair in its evaluation."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loramend.adapter.model import Adapter
from loramend.contracts.data import EvaluationSpec, Trigger
from loramend.contracts.data_steps import CleanSubspaceStep, RoraStep
from loramend.contracts.evidence import VariantName
from loramend.contracts.job import Progress
from loramend.contracts.report import Report
from loramend.contracts.steps import CsuStep, ShrinkStep, Step
from loramend.data.examples import Corpus, Example
from loramend.evaluation.controls import control_adapters, shrunk_like
from loramend.evaluation.repaired import HELD_OUT, evaluate_repair
from loramend.methods.controls import DRAWS
from loramend.reference.open import open_references
from loramend.repair import repair
from loramend.report.html import report_html
from loramend.spectrum.factored import cosine, norm
from loramend.training.host import open_host
from loramend.training.session import Session
from tests.evaluation.models import Toy, classified
from tests.text_models import toy_examples

pytestmark = pytest.mark.slow

STEP = RoraStep(steps=12, batch=16, lr=5e-3)
CLEAN = classified(toy_examples(48, seed=9), name="clean.jsonl")


def session(toy: Toy, *, labelled: bool = True, told: Callable[[Progress], None] = lambda _: None) -> Session:
    trained, held_out = CLEAN.examples[:32], CLEAN.examples[32:]
    return Session(
        host=open_host(toy.base, toy.adapter),
        given=toy.adapter,
        threat="poisoned_adapter",
        labelled=trained if labelled else (),
        texts=trained,
        held_out=held_out if labelled else (),
        held_out_texts=held_out,
        digest="0" * 64,
        seed=0,
        on_progress=told,
    )


def scaled(adapter: Adapter, factor: float) -> Adapter:
    return adapter.with_updates(
        {name: old.with_factors(old.B, old.A, old.scale * factor) for name, old in adapter.updates.items()}
    )


def size(adapter: Adapter) -> float:
    return math.sqrt(sum(float(norm(update)) ** 2 for update in adapter.updates.values()))


def test_each_control_is_what_its_name_says(bert: Toy) -> None:
    seen: list[Progress] = []
    repaired = scaled(bert.adapter, 0.25)
    controls = control_adapters(session(bert, told=seen.append), repaired, STEP)
    assert set(controls) == {"fresh_lora", "continued", "shrink"}

    def likeness(name: VariantName) -> float:
        pairs = [(bert.adapter.updates[key], update) for key, update in controls[name].updates.items()]
        return sum(float(cosine(*pair)) for pair in pairs) / len(pairs)

    assert likeness("shrink") == pytest.approx(1)
    assert size(controls["shrink"]) == pytest.approx(size(bert.adapter) / 4)
    assert 0.7 < likeness("continued") < 0.9999
    assert abs(likeness("fresh_lora")) < 0.3
    ranks = {update.rank for update in controls["fresh_lora"].updates.values()}
    assert ranks == {update.rank for update in bert.adapter.updates.values()}
    phases = {(progress.phase, progress.detail, progress.total) for progress in seen}
    assert phases == {("controls", name, STEP.steps) for name in ("fresh_lora", "continued")}


def test_the_given_adapter_is_not_changed(bert: Toy) -> None:
    before = {name: update.B.clone() for name, update in bert.adapter.updates.items()}
    heads = {name: tensor.clone() for name, tensor in bert.adapter.passthrough.items()}
    control_adapters(session(bert), bert.adapter, STEP)
    assert all(torch.equal(bert.adapter.updates[name].B, B) for name, B in before.items())
    assert all(torch.equal(bert.adapter.passthrough[name], tensor) for name, tensor in heads.items())


def test_without_labels_there_is_shrink_alone(bert: Toy) -> None:
    assert list(control_adapters(session(bert, labelled=False), bert.adapter)) == ["shrink"]


def test_a_zero_update_is_not_scaled(bert: Toy) -> None:
    zero = scaled(bert.adapter, 0.0)
    assert size(shrunk_like(zero, bert.adapter)) == 0.0
    assert size(shrunk_like(bert.adapter, zero)) == 0.0


def test_a_repair_is_measured_beside_its_controls(bert: Toy) -> None:
    spec = EvaluationSpec(trigger=Trigger(kind="prefix", text="mn"), target=1, probes=10)
    data = classified(toy_examples(60, seed=5))
    told = evaluate_repair(
        session(bert), scaled(bert.adapter, 0.2), Corpus(clean=CLEAN, evaluation=data), spec, STEP
    )
    assert told is not None
    variants = {variant.name: variant for variant in told.variants}
    assert list(variants) == ["before", "after", "fresh_lora", "continued", "shrink"]
    before, after, shrink = (variants[name].attack for name in ("before", "after", "shrink"))
    assert before is not None
    assert after is not None
    assert before.rate > 0.9
    assert after.rate < before.rate
    assert shrink == after, "the repair was plain scaling"
    assert told.sentences[-1].startswith("Beside its controls the repair")
    only = spec.model_copy(update={"controls": False})
    told = evaluate_repair(session(bert), bert.adapter, Corpus(clean=CLEAN, evaluation=data), only)
    assert told is not None
    assert [variant.name for variant in told.variants] == ["before", "after"]


def test_without_a_request_the_held_out_examples_serve(bert: Toy) -> None:
    told = evaluate_repair(session(bert), bert.adapter, Corpus(clean=CLEAN), None, STEP)
    assert told is not None
    assert told.examples == 16
    assert told.sentences[0] == HELD_OUT
    assert told.variants[0].attack is None
    unlabelled = Corpus(unlabelled=classified([]))
    assert evaluate_repair(session(bert, labelled=False), bert.adapter, unlabelled, None) is None


def test_a_repair_that_ends_with_a_subspace_step_is_measured_beside_its_placebo(
    bert: Toy, tmp_path: Path
) -> None:
    aligned = tmp_path / "aligned"
    shutil.copytree(bert.base, aligned)
    weights = load_file(aligned / "model.safetensors")
    drawn = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        if tensor.dim() == 2:
            tensor += (
                0.1
                * torch.randn(tensor.shape[0], 2, generator=drawn)
                @ torch.randn(2, tensor.shape[1], generator=drawn)
            )
    save_file(weights, aligned / "model.safetensors", metadata={"format": "pt"})
    # Text without labels: the controls that train are not the question here.
    plain = replace(
        CLEAN, role="unlabelled", kind="text", examples=tuple(Example(e.text) for e in CLEAN.examples)
    )
    corpus = Corpus(unlabelled=plain, evaluation=classified(toy_examples(60, seed=11)))
    spec = EvaluationSpec(trigger=Trigger(kind="prefix", text="mn"), target=1, probes=0)

    def report(*steps: Step) -> Report:
        with open_references(bert.base, aligned) as references:
            return repair(bert.adapter, steps, references, corpus=corpus, evaluation=spec, model=bert.base)[1]

    for step in (CsuStep(k=2), CleanSubspaceStep(k=2)):
        told = report(step)
        assert [comparison.type for comparison in told.placebo] == [step.type]
        assert told.evaluation is not None
        random = told.evaluation.variants[-1]
        assert (random.name, random.draws) == ("random_subspace", DRAWS)
        assert told.evaluation.placebo in ("beats", "ties", "loses")
        assert any("placebo" in sentence for sentence in told.summary)
        assert "random_subspace" in report_html(told)
    told = report(CleanSubspaceStep(k=2), ShrinkStep(factor=0.5))
    assert told.evaluation is not None
    assert told.placebo == []
    assert told.evaluation.placebo is None
