"""restore and shrink against their formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loramend.contracts.steps import RestoreStep, ShrinkStep
from loramend.methods.restore import restore
from loramend.methods.shrink import shrink
from tests.support_references import DenseReferences
from tests.support_updates import dense, make_adapter, make_context, make_update, make_weights


@given(st.integers(0, 2**30), st.floats(-2, 2).filter(lambda a: abs(a) > 1e-3), st.integers(1, 5))
def test_restore_adds_the_leading_displacement(seed: int, alpha: float, k: int) -> None:
    update = make_update(seed=seed)
    references = DenseReferences(make_weights([update], seed=seed), make_weights([update], seed=seed + 1))
    U, S, Vh = torch.linalg.svd(references.displacement(update).double())
    expected = dense(update) + alpha * (U[:, :k] * S[:k]) @ Vh[:k]
    context = make_context(references)
    (whole,) = restore(make_adapter([update]), RestoreStep(alpha=alpha, k=k), context)
    assert whole.update.rank == 4 + k
    assert whole.values["added_norm"] == pytest.approx(abs(alpha) * float(S[:k].norm()), rel=1e-5)
    assert float((dense(whole.update) - expected).norm()) <= 1e-5 * float(expected.norm())

    (same,) = restore(make_adapter([update]), RestoreStep(alpha=alpha, k=k, output_rank="same"), context)
    sigma = torch.linalg.svdvals(expected)
    assert same.update.rank == 4
    tail = float(sigma[4:].square().sum())
    assert same.truncation_loss == pytest.approx(tail / float(sigma.square().sum()), abs=1e-6)
    error = float((dense(same.update) - expected).norm())
    assert error == pytest.approx(tail**0.5, rel=1e-3, abs=1e-4)


def test_restore_with_nothing_to_add() -> None:
    update = make_update()
    weights, other = make_weights([update]), make_weights([update], seed=1)
    for params, aligned in ((RestoreStep(alpha=0), other), (RestoreStep(), weights)):
        context = make_context(DenseReferences(weights, aligned))
        (outcome,) = restore(make_adapter([update]), params, context)
        assert not outcome.applied


def test_shrink() -> None:
    update = make_update()
    (outcome,) = shrink(make_adapter([update]), ShrinkStep(factor=0.25), make_context())
    torch.testing.assert_close(dense(outcome.update), 0.25 * dense(update))
    (outcome,) = shrink(make_adapter([update]), ShrinkStep(factor=1), make_context())
    assert not outcome.applied
