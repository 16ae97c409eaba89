"""Measures of rows and entries against the dense float64 matrix, and that none is ever made."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loramend.spectrum import entries
from loramend.spectrum.entries import kurtosis, rows
from loramend.spectrum.factored import Factored, Factors
from tests.support_updates import LargestTensor, dense, make_update

SEEDS = st.integers(0, 2**31)
SCALES = st.floats(-4, 4).filter(lambda s: abs(s) > 1e-3)
# Ranks over both sides' sizes, single rows and columns, and both ways of counting fourth powers.
SHAPES = st.tuples(st.integers(1, 40), st.integers(2, 40), st.integers(1, 12))


def dense_kurtosis(delta: torch.Tensor) -> float:
    centred = delta - delta.mean()
    return float(centred.pow(4).mean() / centred.square().mean() ** 2)


@given(SEEDS, SCALES, SHAPES, st.sampled_from([1.0, 1e-12, 1e12]))
def test_kurtosis(seed: int, scale: float, shape: tuple[int, int, int], size: float) -> None:
    update = make_update(seed=seed, scale=scale, shape=shape[:2], rank=shape[2], size=size)
    assert kurtosis(update) == pytest.approx(dense_kurtosis(dense(update)), rel=1e-8)


@given(SEEDS, st.integers(1, 7), st.floats(-100, 100))
def test_the_mean_is_taken_off_exactly(seed: int, rank: int, offset: float) -> None:
    """A constant added to every entry changes nothing; a column of A and B holds it."""
    update = make_update(seed=seed, rank=rank)
    B = torch.cat([update.B.double(), offset * torch.ones(24, 1, dtype=torch.float64)], dim=1)
    A = torch.cat([update.A.double(), torch.ones(1, 18, dtype=torch.float64)])
    assert kurtosis(Factors(B, A)) == pytest.approx(dense_kurtosis(update.B.double() @ update.A.double()))


@given(SEEDS, st.integers(1, 6), st.integers(1, 60))
def test_both_ways_of_counting_agree(seed: int, rank: int, block: int) -> None:
    source = torch.Generator().manual_seed(seed)
    P = torch.randn(30, rank, generator=source, dtype=torch.float64)
    Q = torch.randn(20, rank, generator=source, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "BLOCK_ELEMENTS", block)
        by_pairs, by_rows = entries._by_pairs(P, Q), entries._by_rows(P, Q)
    assert by_pairs == pytest.approx(float((P @ Q.mT).pow(4).sum()), rel=1e-10)
    assert by_rows == pytest.approx(by_pairs, rel=1e-10)


@given(SEEDS, SCALES, SHAPES)
def test_rows(seed: int, scale: float, shape: tuple[int, int, int]) -> None:
    update = make_update(seed=seed, scale=scale, shape=shape[:2], rank=shape[2])
    norms = dense(update).norm(dim=1)
    energy = norms.square()
    got = rows(update)
    assert got.top == pytest.approx(float(energy.topk(min(8, len(energy))).values.sum() / energy.sum()))
    root = math.sqrt(len(norms))
    if len(norms) == 1:
        assert got.sparsity is None
    else:
        hoyer = (root - float(norms.sum() / norms.norm())) / (root - 1)
        assert got.sparsity == pytest.approx(hoyer, rel=1e-8, abs=1e-12)


def test_known_matrices() -> None:
    """One row that holds all, rows that weigh the same, entries of two values, one value, none."""
    ones, first = torch.ones(1, 16), torch.eye(16)[:, :1]
    assert rows(Factors(first, ones)) == (1.0, 1.0)
    assert rows(Factors(torch.ones(16, 1), ones)) == pytest.approx((0.5, 0.0), abs=1e-12)
    signs = torch.tensor([1.0, -1.0]).repeat(8)[:, None]
    assert kurtosis(Factors(signs, ones)) == pytest.approx(1.0)
    for constant in (3.0, 0.0):
        assert kurtosis(Factors(torch.full((16, 1), constant), ones)) is None
    assert rows(Factors(torch.zeros(16, 1), ones)) == (None, None)


@pytest.mark.parametrize("rank", [4, 24])
def test_nothing_of_the_updates_size_is_made(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "BLOCK_ELEMENTS", 1 << 14)
    update: Factored = make_update(shape=(700, 600), rank=rank)
    with LargestTensor() as largest:
        kurtosis(update)
        rows(update)
    assert largest.elements <= max(1 << 14, 700 * (rank + 1)) < 700 * 600 / 20
