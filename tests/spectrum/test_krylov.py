"""Converged leading triplets of W + BA against the dense SVD of the sum."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loramend.spectrum import krylov
from loramend.spectrum.krylov import Operator, leading_triplets
from tests.support_updates import LargestTensor


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weight_and_update(rows: int, columns: int, r: int, seed: int) -> Operator:
    random = source(seed)
    W = torch.randn(rows, columns, generator=random)
    B = torch.randn(rows, r, generator=random, dtype=torch.float64)
    A = torch.randn(r, columns, generator=random, dtype=torch.float64)
    return Operator(W, B, A)


def formed(M: Operator) -> torch.Tensor:
    assert M.B is not None
    assert M.A is not None
    total = M.W.double() + M.B @ M.A
    return total.mT if M.swapped else total


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5), st.booleans(), st.integers(0, 2**31))
def test_operator_is_the_sum(rows: int, columns: int, r: int, swapped: bool, seed: int) -> None:
    M = weight_and_update(rows, columns, r, seed)
    M = M.T if swapped else M
    X = torch.randn(M.shape[1], 3, dtype=torch.float64)
    torch.testing.assert_close(M @ X, formed(M) @ X)
    assert M.shape == tuple(formed(M).shape)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.booleans(), st.integers(0, 2**31))
def test_triplets_of_small_matrices(rows: int, columns: int, k: int, swapped: bool, seed: int) -> None:
    M = weight_and_update(rows, columns, 2, seed)
    M = M.T if swapped else M
    found = leading_triplets(M, k, source(seed))
    S = torch.linalg.svdvals(formed(M))[:k]
    assert found.S.shape == S.shape
    torch.testing.assert_close(found.S, S, rtol=0, atol=1e-9 * float(S[0]))
    # One side is exact, the other off by the residual; which one depends on the smaller side.
    torch.testing.assert_close(formed(M) @ found.V, found.U * found.S, rtol=0, atol=1e-7 * float(S[0]))
    torch.testing.assert_close(formed(M).mT @ found.U, found.V * found.S, rtol=0, atol=1e-7 * float(S[0]))


@pytest.mark.parametrize("shape", [(700, 500), (500, 700), (600, 600)])
@pytest.mark.parametrize("start", [False, True])
def test_triplets_inside_a_bulk(shape: tuple[int, int], start: bool) -> None:
    """A Gaussian matrix: singular values that differ by parts in a thousand, the hardest case there is."""
    M = weight_and_update(*shape, 4, seed=1)
    U, S, Vh = torch.linalg.svd(formed(M))
    near = Vh[:8].mT if start else None
    found = leading_triplets(M, 10, source(), near)
    assert found.residual <= 1e-8
    torch.testing.assert_close(found.S, S[:10], rtol=1e-9, atol=0)
    cosines = (found.U * U[:, :10]).sum(0).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-8)


def test_rank_below_k_zero_and_wide_spread() -> None:
    zero = Operator(torch.zeros(30, 20))
    assert leading_triplets(zero, 4, source()).S.tolist() == [0, 0, 0, 0]
    thin = torch.randn(60, 2, generator=source()) @ torch.randn(2, 50, generator=source(1))
    found = leading_triplets(Operator(thin), 5, source())
    torch.testing.assert_close(found.S, torch.linalg.svdvals(thin.double())[:5], rtol=0, atol=1e-6)
    Q = torch.linalg.qr(torch.randn(80, 80, generator=source(2), dtype=torch.float64)).Q
    spread = (Q * torch.logspace(0, -5, 80)).float()
    found = leading_triplets(Operator(spread), 12, source())
    torch.testing.assert_close(found.S, torch.linalg.svdvals(spread.double())[:12], rtol=1e-6, atol=0)


def test_a_limit_on_steps_shows_in_the_residual() -> None:
    found = leading_triplets(weight_and_update(400, 400, 4, 0), 10, source(), max_steps=1)
    assert found.residual > 1e-4


def test_the_sum_is_never_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(krylov, "BLOCK_ELEMENTS", 4096)  # W is turned to float64 in parts of this size
    M = weight_and_update(600, 300, 4, 0)
    with LargestTensor(known=[M.W]) as made:
        leading_triplets(M, 4, source())
        leading_triplets(M.T, 4, source())
    assert made.elements < M.W.numel()
