import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loramend.reference.range_finder import (
    EXACT_SIDE,
    POWER_ITERATIONS,
    first,
    leading_triplets,
    smallest_k,
)
from tests.reference.checkpoints import normal


def with_spectrum(
    out_features: int, in_features: int, sigma: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(M, U, V), float64: M = U diag(sigma) Vᵀ with random orthonormal U and V."""
    k = len(sigma)
    U = torch.linalg.qr(normal(out_features, k, seed=seed).double())[0]
    V = torch.linalg.qr(normal(in_features, k, seed=seed + 1).double())[0]
    return (U * sigma) @ V.mT, U, V


def worst_angle(X: Tensor, Y: Tensor) -> float:
    """The largest principal angle between two column spaces, in degrees."""
    residual = X.double() - Y.double() @ (Y.double().mT @ X.double())
    return math.degrees(math.asin(min(1.0, float(torch.linalg.matrix_norm(residual, 2)))))


def is_randomised(M: Tensor, k: int) -> bool:
    return min(M.shape) > max(EXACT_SIDE, (POWER_ITERATIONS + 1) * k)


# Of 1/√i, σ_k and σ_{k+1} differ by 1.6 %: keeping only the last power iterate leaves 8 degrees there.
@pytest.mark.parametrize(
    ("power", "degrees", "relative"), [(0.5, 0.5, 1e-5), (1.0, 0.01, 1e-6), (2.0, 0.02, 1e-5)]
)
@pytest.mark.parametrize("shape", [(900, 700), (700, 900)])
def test_decaying_spectra_agree_with_the_exact_svd(
    shape: tuple[int, int], power: float, degrees: float, relative: float
) -> None:
    k = 32
    sigma = torch.arange(1, 701, dtype=torch.float64) ** -power
    M, U, V = with_spectrum(*shape, sigma, seed=3)
    assert is_randomised(M, k)
    found = leading_triplets(M.float(), k)
    assert found.k == k
    torch.testing.assert_close(found.S.double(), sigma[:k], rtol=relative, atol=0)
    assert worst_angle(found.U, U[:, :k]) < degrees
    assert worst_angle(found.V, V[:, :k]) < degrees
    assert found.norm == pytest.approx(float(sigma.norm()), rel=1e-6)
    assert found.energy == pytest.approx(float((sigma[:k] ** 2).sum() / (sigma**2).sum()), rel=1e-5)


def test_a_flat_spectrum_keeps_its_largest_value() -> None:
    M = normal(800, 800)
    sigma = torch.linalg.svdvals(M.double())
    found = leading_triplets(M, 32)
    assert float(found.S[0]) == pytest.approx(float(sigma[0]), rel=5e-3)
    assert torch.all(found.S.double() <= sigma[:32] * (1 + 1e-6))
    torch.testing.assert_close(found.S.double(), sigma[:32], rtol=0.03, atol=0)


@pytest.mark.parametrize("equal", [30, 200])
def test_clusters_of_equal_values_are_found_whole(equal: int) -> None:
    k = 32
    sigma = torch.cat([torch.ones(equal), torch.full((40,), 0.1)]).double()
    M, U, _ = with_spectrum(500, 400, sigma, seed=5)
    assert is_randomised(M, k)
    found = leading_triplets(M.float(), k)
    torch.testing.assert_close(found.S.double(), sigma[:k], rtol=1e-5, atol=0)
    m = min(k, equal)
    assert worst_angle(found.U[:, :m], U[:, :equal]) < 0.05


@given(
    out_features=st.integers(1, 60),
    in_features=st.integers(1, 60),
    rank=st.integers(1, 20),
    k=st.integers(1, 24),
    decay=st.floats(0.3, 1.0),
    scale=st.sampled_from([1e-25, 1e-6, 1.0, 1e20]),
)
@settings(max_examples=60, deadline=None)
def test_triplets_of_any_shape_and_rank(
    out_features: int, in_features: int, rank: int, k: int, decay: float, scale: float
) -> None:
    rank = min(rank, out_features, in_features)
    sigma = scale * decay ** torch.arange(rank, dtype=torch.float64)
    M, _, _ = with_spectrum(out_features, in_features, sigma, seed=rank)
    found = leading_triplets(M.float(), k)
    expected = sigma[: found.k]
    assert found.k <= min(k, out_features, in_features)
    assert found.k >= int((sigma[: min(k, rank)] > 1e-5 * scale).sum())
    torch.testing.assert_close(found.S.double(), expected, rtol=0, atol=3e-6 * scale)
    eye = torch.eye(found.k)
    torch.testing.assert_close(found.U.mT @ found.U, eye, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.V.mT @ found.V, eye, rtol=0, atol=1e-5)
    assert found.norm == pytest.approx(float(sigma.norm()), rel=1e-5)
    if found.k == rank:
        dense = (found.U.double() * found.S.double()) @ found.V.double().mT
        torch.testing.assert_close(dense, M, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("shape", [(400, 300), (300, 400), (700, 400)])
def test_low_rank_is_found_exactly_and_no_rounding_directions_with_it(shape: tuple[int, int]) -> None:
    sigma = torch.linspace(3, 1, 5, dtype=torch.float64)
    M, U, V = with_spectrum(*shape, sigma, seed=1)
    assert is_randomised(M, 32)
    found = leading_triplets(M.float(), 32)
    assert found.k == 5
    torch.testing.assert_close(found.S.double(), sigma, rtol=1e-6, atol=0)
    assert worst_angle(found.U, U) < 0.01
    assert worst_angle(found.V, V) < 0.01
    assert found.energy == pytest.approx(1.0, abs=1e-6)


def test_a_matrix_that_is_mostly_zeros() -> None:
    M = torch.zeros(400, 300)
    M[7, 9], M[300, 2], M[300, 9] = 3.0, 4.0, 0.0
    assert is_randomised(M, 8)
    found = leading_triplets(M, 8)
    torch.testing.assert_close(found.S, torch.tensor([4.0, 3.0]))
    torch.testing.assert_close((found.U * found.S) @ found.V.mT, M)


def test_vectors_of_small_values_are_orthonormal() -> None:
    sigma = 10.0 ** -torch.linspace(0, 6, 60, dtype=torch.float64)
    M, _, _ = with_spectrum(500, 400, sigma, seed=2)
    assert is_randomised(M, 60)
    found = leading_triplets(M.float(), 60)
    assert found.k > 40
    for side in (found.U, found.V):
        torch.testing.assert_close(side.mT @ side, torch.eye(found.k), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.S.double(), sigma[: found.k], rtol=0, atol=1e-6)


def test_left_and_right_vectors_belong_together() -> None:
    M = normal(500, 400)
    found = leading_triplets(M, 16)
    torch.testing.assert_close(M.mT @ found.U, found.V * found.S, rtol=0, atol=0.02 * float(found.S[0]))
    assert torch.all((found.U * (M @ found.V)).sum(dim=0) > 0.99 * found.S)


def test_a_matrix_stored_transposed_gives_the_same() -> None:
    M = normal(500, 300)
    turned = M.mT.contiguous().mT
    assert not turned.is_contiguous()
    torch.testing.assert_close(leading_triplets(turned, 8).S, leading_triplets(M, 8).S)


def test_the_same_seed_gives_the_same_numbers() -> None:
    M = normal(500, 400)
    once, again, other = (leading_triplets(M, 8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(once.U, again.U)
    assert torch.equal(once.S, again.S)
    assert not torch.equal(once.U, other.U)


@pytest.mark.parametrize("shape", [(6, 4), (500, 400), (0, 4)])
def test_zero_has_no_directions(shape: tuple[int, int]) -> None:
    found = leading_triplets(torch.zeros(shape), 3)
    assert (found.k, found.norm, found.energy) == (0, 0.0, 1.0)
    assert found.U.shape == (shape[0], 0)
    assert found.V.shape == (shape[1], 0)
    assert smallest_k(found, 0.9) == 0


def test_first_and_smallest_k_choose_by_energy() -> None:
    sigma = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    M, _, _ = with_spectrum(9, 7, sigma, seed=0)
    found = leading_triplets(M.float(), 4)
    total = float((sigma**2).sum())
    assert smallest_k(found, 15.9 / total) == 1
    assert smallest_k(found, 16.1 / total) == 2
    assert smallest_k(found, 1.0) == 4
    two = first(found, 2)
    assert two.U.shape == (9, 2)
    assert two.norm == found.norm
    assert two.energy == pytest.approx(20 / total, rel=1e-5)
    assert first(found, 9) is found
