"""Factored linear algebra against dense float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loramend.spectrum import factored
from loramend.spectrum.factored import Factors
from tests.support_updates import LargestTensor, make_update

SHAPES = st.tuples(*[st.integers(1, 12)] * 3)  # out, in, r; r may exceed both
SEEDS = st.integers(0, 2**31)
KINDS = st.sampled_from(["full", "zero", "repeated", "cancelling", "spread"])


def build(shape: tuple[int, int, int], seed: int, kind: str, scale: float = -1.5) -> Factors:
    """Factors of one of the kinds that break careless algebra."""
    out, in_, r = shape
    source = torch.Generator().manual_seed(seed)
    B = torch.randn(out, r, generator=source, dtype=torch.float64)
    A = torch.randn(r, in_, generator=source, dtype=torch.float64)
    if kind == "zero":
        B = torch.zeros_like(B)
    elif kind == "repeated":
        B = B[:, :1].expand(out, r)
    elif kind == "cancelling":
        B = B[:, :1].expand(out, r)
        A = A - A.mean(0)
    elif kind == "spread":
        B = B * torch.logspace(0, -9, r, dtype=torch.float64)
    return Factors(B, A, scale)


def full(X: factored.Factored) -> Tensor:
    return X.scale * X.B.double() @ X.A.double()


def size(X: Factors) -> float:
    """What rounding is measured against: the product before any cancellation."""
    return abs(float(X.scale)) * float(X.B.abs().sum() * X.A.abs().sum())


@given(SHAPES, SEEDS, KINDS)
def test_svd_equals_the_dense_one(shape: tuple[int, int, int], seed: int, kind: str) -> None:
    X = build(shape, seed, kind)
    U, S, V = factored.svd(X)
    m = min(shape)
    assert (U.shape, S.shape, V.shape) == ((shape[0], m), (m,), (shape[1], m))
    tolerance = 1e-13 * size(X)
    torch.testing.assert_close(S, torch.linalg.svdvals(full(X))[:m], rtol=0, atol=tolerance)
    torch.testing.assert_close(factored.singular_values(X), S, rtol=0, atol=tolerance)
    torch.testing.assert_close((U * S) @ V.mT, full(X), rtol=0, atol=tolerance)
    identity = torch.eye(m, dtype=torch.float64)
    torch.testing.assert_close(U.mT @ U, identity, rtol=0, atol=1e-12)
    torch.testing.assert_close(V.mT @ V, identity, rtol=0, atol=1e-12)


@given(SHAPES, SEEDS, KINDS, st.integers(1, 15))
def test_truncation_is_the_best_of_its_rank(
    shape: tuple[int, int, int], seed: int, kind: str, rank: int
) -> None:
    X = build(shape, seed, kind)
    kept, loss = factored.truncate(X, rank)
    assert kept.B.shape == (shape[0], rank)
    assert kept.A.shape == (rank, shape[1])
    U, S, Vh = torch.linalg.svd(full(X), full_matrices=False)
    best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    tail = float(S[rank:].square().sum())
    error = float((full(kept) - full(X)).square().sum())
    assert error**0.5 == pytest.approx(tail**0.5, abs=1e-12 * size(X))
    if rank < len(S) and float(S[rank - 1] - S[rank]) > 1e-3 * float(S[0]):  # else the best is not unique
        torch.testing.assert_close(full(kept), best, rtol=0, atol=1e-9 * size(X))
    total = float(S.square().sum())
    if total > (1e-12 * size(X)) ** 2:
        assert float(loss) == pytest.approx(tail / total, abs=1e-9)


@given(SHAPES, SEEDS, SEEDS, KINDS, KINDS, st.integers(1, 12))
def test_products_norms_and_distances(
    shape: tuple[int, int, int], seed: int, other: int, kind: str, kind2: str, r2: int
) -> None:
    X, Y = build(shape, seed, kind), build((shape[0], shape[1], r2), other, kind2, scale=0.3)
    F, G = full(X), full(Y)
    tolerance = 1e-13 * (size(X) + size(Y))
    assert float(factored.norm(X)) == pytest.approx(float(F.norm()), abs=tolerance)
    assert float(factored.distance(X, Y)) == pytest.approx(float((F - G).norm()), abs=tolerance)
    product = float((F * G).sum())
    assert float(factored.inner(X, Y)) == pytest.approx(product, abs=1e-12 * size(X) * size(Y))
    torch.testing.assert_close(
        full(factored.combine((2.0, X), (-3.0, Y))), 2 * F - 3 * G, rtol=0, atol=9 * tolerance
    )
    Gram = factored.gram([X, Y, X])
    dense = torch.stack([F.flatten(), G.flatten(), F.flatten()])
    torch.testing.assert_close(Gram, dense @ dense.mT, rtol=1e-9, atol=1e-12 * (size(X) + size(Y)) ** 2)
    if "zero" in (kind, kind2):
        assert float(factored.cosine(X, Y)) == 0
    elif "cancelling" not in (kind, kind2):
        expected = product / float(F.norm() * G.norm())
        assert float(factored.cosine(X, Y)) == pytest.approx(expected, abs=1e-9)


def test_distance_does_not_cancel() -> None:
    X = make_update(shape=(40, 30), rank=5)
    nudged = Factors(X.B.double() * (1 + 1e-12), X.A, X.scale)
    assert float(factored.distance(X, nudged) / factored.norm(X)) == pytest.approx(1e-12, rel=1e-3)


@settings(max_examples=20)
@given(SHAPES, SEEDS)
def test_batches_equal_singles(shape: tuple[int, int, int], seed: int) -> None:
    singles = [build(shape, seed + i, "full", scale=1.0 + i) for i in range(3)]
    batch = Factors(
        torch.stack([X.B for X in singles]),
        torch.stack([X.A for X in singles]),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
    )
    for function in (factored.singular_values, factored.norm):
        together = function(batch)
        for i, X in enumerate(singles):
            torch.testing.assert_close(together[i], function(X))
    kept, loss = factored.truncate(batch, 2)
    for i, X in enumerate(singles):
        alone, lost = factored.truncate(X, 2)
        torch.testing.assert_close(loss[i], lost, rtol=0, atol=1e-12)
        torch.testing.assert_close(kept.B[i] @ kept.A[i], full(alone), rtol=0, atol=1e-9 * size(X))
    torch.testing.assert_close(
        factored.inner(batch, batch), torch.stack([factored.inner(X, X) for X in singles])
    )


def test_svds_takes_every_update_once_in_bounded_batches() -> None:
    updates = [
        make_update(f"m.layers.{i}", shape=(20 + 4 * (i % 2), 16), rank=4, seed=i, scale=i + 1)
        for i in range(7)
    ]
    limit = 2 * 8 * 4 * (24 + 16)  # two of the larger
    assert max(len(batch) for batch in factored.batches(updates, limit)) == 2
    found = {update.name: usv for update, usv in factored.svds(updates, limit)}
    assert found.keys() == {update.name for update in updates}
    for update in updates:
        torch.testing.assert_close(found[update.name].S, factored.svd(update).S)


def test_nothing_of_the_updates_own_size_is_made() -> None:
    X = make_update(shape=(200_000, 200_000), rank=4)  # ΔW would hold 4e10 entries
    Y = make_update(shape=(200_000, 200_000), rank=3, seed=1)
    with LargestTensor() as made:
        factored.svd(X)
        factored.truncate(X, 2)
        factored.cosine(X, Y)
        factored.distance(X, Y)
        factored.gram([X, Y])
        list(factored.svds([X]))
    assert made.elements <= 200_000 * (4 + 3)
