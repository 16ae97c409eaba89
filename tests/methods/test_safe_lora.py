"""Safe LoRA against the published formula, formed densely."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.steps import SafeLoraStep
from loramend.methods.base import Outcome
from loramend.methods.safe_lora import safe_lora
from tests.support_references import DenseReferences
from tests.support_updates import dense, make_adapter, make_context, make_update, make_weights

NAMES = [f"model.layers.{i}.q_proj" for i in range(6)]


def published(updates: list[Update], references: DenseReferences) -> dict[str, tuple[Tensor, float]]:
    """C = VVᵀ/‖V‖_F formed; CB and the cosine of CBA with BA, rounded to five digits."""
    found = {}
    for update in updates:
        V = references.displacement(update).double()
        C = V @ V.mT / V.norm()
        CB = C @ update.B.double()
        cosine = torch.nn.functional.cosine_similarity(
            (CB @ update.A.double()).flatten(), (update.B.double() @ update.A.double()).flatten(), dim=0
        )
        found[update.name] = (CB, round(float(cosine), 5))
    return found


def case(seed: int) -> tuple[list[Update], DenseReferences]:
    updates = [make_update(name, (20, 14), 3, seed=seed + i) for i, name in enumerate(NAMES)]
    return updates, DenseReferences(make_weights(updates, seed=seed), make_weights(updates, seed=seed + 1))


def run(updates: list[Update], params: SafeLoraStep, references: DenseReferences) -> dict[str, Outcome]:
    context = make_context(references)
    return {outcome.name: outcome for outcome in safe_lora(make_adapter(updates), params, context)}


@given(st.integers(0, 2**30), st.floats(0.5, 0.95))
def test_threshold(seed: int, tau: float) -> None:
    updates, references = case(seed)
    expected = published(updates, references)
    for name, outcome in run(updates, SafeLoraStep(tau=tau), references).items():
        CB, cosine = expected[name]
        assert outcome.values["cosine"] == pytest.approx(cosine, abs=2e-5)
        if abs(cosine - tau) > 2e-5:
            assert outcome.applied == (cosine <= tau)
        if outcome.applied:
            projected = outcome.update.scale * CB @ outcome.update.A.double()
            assert float((dense(outcome.update) - projected).norm() / projected.norm()) <= 1e-5


@given(st.integers(0, 2**30), st.integers(1, 8))
def test_number(seed: int, count: int) -> None:
    updates, references = case(seed)
    expected = published(updates, references)
    cut = sorted(cosine for _, cosine in expected.values())[: min(count, 6)][-1]
    outcomes = run(updates, SafeLoraStep(select="number", count=count), references)
    chosen = {name for name, outcome in outcomes.items() if outcome.applied}
    lowest = {name for name, (_, cosine) in expected.items() if cosine <= cut}
    assert chosen == lowest


def test_modules_that_tie_are_projected_together() -> None:
    updates = [make_update(name, (20, 14), 3) for name in NAMES[:3]]
    weights = make_weights(updates[:1])
    base = {update.weight: weights[updates[0].weight] for update in updates}
    aligned = {name: W + torch.outer(W[:, 0], W[0]) for name, W in base.items()}
    outcomes = run(updates, SafeLoraStep(select="number", count=1), DenseReferences(base, aligned))
    assert all(outcome.applied for outcome in outcomes.values())


def test_scaling_the_displacement_scales_the_result() -> None:
    """C is no projector: the limit the docstring names."""
    update = make_update()
    base = make_weights([update])
    aligned = make_weights([update], seed=1)
    twice = {name: base[name] + 2 * (aligned[name] - base[name]) for name in base}
    once = run([update], SafeLoraStep(tau=1), DenseReferences(base, aligned))[update.name].update
    doubled = run([update], SafeLoraStep(tau=1), DenseReferences(base, twice))[update.name].update
    torch.testing.assert_close(dense(doubled), 2 * dense(once), rtol=1e-4, atol=1e-4)


def test_equal_weights_are_left_alone() -> None:
    update = make_update()
    base = make_weights([update])
    outcome = run([update], SafeLoraStep(), DenseReferences(base, base))[update.name]
    assert not outcome.applied
    assert "equal" in outcome.reason
