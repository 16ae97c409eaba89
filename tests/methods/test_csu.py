"""CSU's closed form against a dense solution of its objective."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.steps import CsuStep, RandomSubspaceStep
from loramend.methods.base import Outcome
from loramend.methods.correction import correct
from loramend.methods.csu import csu
from loramend.methods.draws import generator, orthonormal
from loramend.methods.random_subspace import random_pair, random_subspace
from tests.support_references import DenseReferences, exact_subspace
from tests.support_updates import dense, make_adapter, make_context, make_update, make_weights

SEEDS = st.integers(0, 2**31)
SIDES = st.sampled_from(["both", "left", "right"])


def by_abstract(**params: Any) -> CsuStep:
    """csu as the paper's abstract has it: what lies off the displacement's directions is attenuated."""
    return CsuStep.model_validate({"attenuate": "outside", "sides": "both", "k": None} | params)


def one(update: Update, params: CsuStep, references: DenseReferences) -> Outcome:
    (outcome,) = csu(make_adapter([update]), params, make_context(references))
    return outcome


def projectors(D: Tensor, k: int, sides: str) -> tuple[Tensor, Tensor]:
    subspace = exact_subspace(D, k)
    P, Q = (X.double() @ X.double().mT for X in (subspace.U, subspace.V))
    out, in_ = D.shape
    left = torch.eye(out, dtype=torch.float64) if sides == "right" else P
    right = torch.eye(in_, dtype=torch.float64) if sides == "left" else Q
    return left, right


def minimiser(delta: Tensor, left: Tensor, right: Tensor, penalty: float) -> Tensor:
    """The objective's minimum by solving its normal equations over all entries of X."""
    out, in_ = delta.shape
    eye_out, eye_in = torch.eye(out, dtype=torch.float64), torch.eye(in_, dtype=torch.float64)
    full = torch.kron(left, right)  # on vec(X) row by row: X -> left X rightᵀ
    off = torch.kron(eye_out - left, eye_in - right)
    partial = torch.eye(out * in_, dtype=torch.float64) - full - off
    x = delta.flatten()
    total = x @ x
    lam_p, lam_o = (penalty * ((M @ x) @ (M @ x)) / total for M in (partial, off))
    H = torch.eye(out * in_, dtype=torch.float64) + lam_p * partial.mT @ partial + lam_o * off.mT @ off
    solution: Tensor = torch.linalg.solve(H, x)
    return solution.reshape(out, in_)


@given(SEEDS, SIDES, st.sampled_from([0.1, 10.0, 1000.0]), st.integers(1, 5))
def test_the_component_form_minimises_its_objective(seed: int, sides: str, penalty: float, k: int) -> None:
    update = make_update("m.layers.0.q", (9, 7), 2, seed=seed)
    weights = make_weights([update], seed=seed), make_weights([update], seed=seed + 1)
    references = DenseReferences(*weights)
    left, right = projectors(references.displacement(update), k, sides)
    best = minimiser(dense(update), left, right, penalty)

    exact = one(update, by_abstract(k=k, penalty=penalty, sides=sides, output_rank="double"), references)
    assert exact.truncation_loss == 0
    assert float((dense(exact.update) - best).norm()) <= 1e-5 * float(dense(update).norm())

    kept = one(update, by_abstract(k=k, penalty=penalty, sides=sides), references)
    U, S, Vh = torch.linalg.svd(best)
    truncated = (U[:, :2] * S[:2]) @ Vh[:2]
    assert kept.update.rank == 2
    assert kept.truncation_loss == pytest.approx(float(S[2:].square().sum() / S.square().sum()), abs=1e-6)
    if float(S[1] - S[2]) > 1e-2 * float(S[0]):  # else the best of rank 2 is not determined
        assert float((dense(kept.update) - truncated).norm()) <= 1e-5 * float(dense(update).norm())
    if sides != "both":
        assert kept.truncation_loss == 0
        assert kept.values["share_off"] == 0


@given(SEEDS, SIDES, st.sampled_from([0.5, 20.0]))
def test_the_direction_form(seed: int, sides: str, penalty: float) -> None:
    update = make_update("m.layers.0.q", (12, 10), 3, seed=seed)
    references = DenseReferences(make_weights([update], seed=seed), make_weights([update], seed=seed + 1))
    left, right = projectors(references.displacement(update), 4, sides)
    U, S, Vh = torch.linalg.svd(dense(update))
    expected = torch.zeros(12, 10, dtype=torch.float64)
    for sigma, u, v in zip(S[:3], U.mT, Vh, strict=False):
        e = 1 - (left @ u).square().sum() * (right @ v).square().sum()
        expected += sigma / (1 + penalty * e) * torch.outer(u, v)
    outcome = one(update, by_abstract(k=4, penalty=penalty, sides=sides, form="direction"), references)
    assert outcome.update.rank == 3
    assert outcome.truncation_loss == 0
    assert float((dense(outcome.update) - expected).norm()) <= 1e-5 * float(dense(update).norm())


@given(SEEDS, SIDES, st.sampled_from([0.5, 20.0]), st.sampled_from(["component", "direction"]))
def test_attenuating_inside(seed: int, sides: str, penalty: float, form: str) -> None:
    update = make_update("m.layers.0.q", (12, 10), 3, seed=seed)
    references = DenseReferences(make_weights([update], seed=seed), make_weights([update], seed=seed + 1))
    subspace = exact_subspace(references.displacement(update), 4)
    P, Q = (X.double() @ X.double().mT for X in (subspace.U, subspace.V))
    P, Q = (0 * P if sides == "right" else P), (0 * Q if sides == "left" else Q)
    if form == "component":
        shrunk = 1 - 1 / (1 + penalty)
        left, right = (torch.eye(len(M), dtype=torch.float64) - shrunk * M for M in (P, Q))
        expected = left @ dense(update) @ right
    else:
        U, S, Vh = torch.linalg.svd(dense(update))
        expected = torch.zeros(12, 10, dtype=torch.float64)
        for sigma, u, v in zip(S[:3], U.mT, Vh, strict=False):
            e = 1 - (1 - (P @ u).square().sum()) * (1 - (Q @ v).square().sum())
            expected += sigma / (1 + penalty * e) * torch.outer(u, v)
    params = CsuStep.model_validate({"k": 4, "penalty": penalty, "sides": sides, "form": form})
    outcome = one(update, params, references)
    assert outcome.update.rank == 3
    assert outcome.truncation_loss == 0
    assert float((dense(outcome.update) - expected).norm()) <= 1e-5 * float(dense(update).norm())


def test_rank_double_is_for_what_needs_it() -> None:
    for params in ({"attenuate": "inside"}, {"attenuate": "outside", "form": "direction"}):
        with pytest.raises(ValidationError, match="exact at rank r"):
            CsuStep.model_validate({"output_rank": "double"} | params)


def test_an_update_inside_the_subspace_is_kept_and_one_outside_is_attenuated() -> None:
    U, V = (orthonormal(n, 6, generator(0, name)) for n, name in ((20, "U"), (16, "V")))
    params = by_abstract(penalty=4.0)
    inside = make_update(shape=(20, 16), rank=2)
    inside = replace(inside, B=U[:, :2].float(), A=V[:, :2].mT.float())
    kept = correct(inside, U[:, :3], V[:, :3], params)
    torch.testing.assert_close(kept.factors.B @ kept.factors.A, dense(inside), rtol=0, atol=1e-6)
    outside = correct(inside, U[:, 3:], V[:, 3:], params)
    torch.testing.assert_close(outside.factors.B @ outside.factors.A, dense(inside) / 5, rtol=0, atol=1e-6)
    assert outside.values["share_off"] == pytest.approx(1)
    assert outside.values["c_off"] == pytest.approx(1 / 5)
    half = correct(inside, U[:, :3], V[:, 3:], params)
    assert half.values["share_partial"] == pytest.approx(1)


def test_where_the_result_has_rank_r_nothing_is_truncated() -> None:
    """c_o = c_p² makes X = (B∥ + c_p B⊥)(A∥ + c_p A⊥): here penalty and shares are chosen so."""
    update = make_update(shape=(30, 20), rank=3)
    U, V = random_pair(update, 5, 0)
    probe = correct(update, U, V, by_abstract(penalty=1.0)).values
    p, o = probe["share_partial"], probe["share_off"]
    assert o > 2 * p
    penalty = (o - 2 * p) / p**2  # λ_o = 2λ_p + λ_p²
    result = correct(update, U, V, by_abstract(penalty=penalty))
    assert result.values["c_off"] == pytest.approx(result.values["c_partial"] ** 2)
    assert result.truncation_loss == 0
    assert result.factors.A.shape[0] == 3
    left, right = U @ U.mT, V @ V.mT
    best = minimiser(dense(update), left, right, penalty)
    torch.testing.assert_close(result.factors.B @ result.factors.A, best, rtol=0, atol=1e-5)


def test_what_csu_reports() -> None:
    update = make_update()
    references = DenseReferences(make_weights([update], seed=1), make_weights([update], seed=2))
    values = one(update, by_abstract(energy=0.5), references).values
    subspace = references.displacement_subspace(update, energy=0.5)
    assert values["k"] == subspace.k
    assert values["displacement_energy"] == subspace.energy
    assert values["share_full"] + values["share_partial"] + values["share_off"] == pytest.approx(1)


def test_left_alone() -> None:
    update = make_update()
    weights = make_weights([update])
    same = one(update, by_abstract(), DenseReferences(weights, weights))
    assert not same.applied
    assert "equal" in same.reason
    references = DenseReferences(weights, make_weights([update], seed=9))
    free = one(update, by_abstract(penalty=0), references)
    assert not free.applied
    assert free.values["c_off"] == 1


@given(SEEDS)
def test_random_subspace_is_the_same_form_on_a_random_pair(seed: int) -> None:
    update = make_update(seed=seed)
    params = RandomSubspaceStep(k=5, penalty=3.0, sides="both")
    (outcome,) = random_subspace(make_adapter([update]), params, make_context(seed=seed))
    expected = correct(update, *random_pair(update, 5, seed), params).factors
    torch.testing.assert_close(dense(outcome.update), expected.B @ expected.A, rtol=0, atol=1e-5)
    (other,) = random_subspace(make_adapter([update]), params, make_context(seed=seed + 1))
    assert not torch.equal(outcome.update.B, other.update.B)


def test_random_pairs_are_orthonormal_and_at_most_the_smaller_side() -> None:
    update = make_update(shape=(30, 8))
    U, V = random_pair(update, 64, 0)
    assert (U.shape, V.shape) == ((30, 8), (8, 8))
    torch.testing.assert_close(U.mT @ U, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(V.mT @ V, torch.eye(8, dtype=torch.float64))
