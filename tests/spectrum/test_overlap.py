"""Whether a direction resembles a singular vector: every certificate against all singular vectors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loramend.spectrum.krylov import Operator
from loramend.spectrum.overlap import Overlap, christoffel, largest_cosines, overlaps

K = 6


def case(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W with K spikes over a bulk, its U and S, and directions to ask about."""
    random = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, columns, generator=random, dtype=torch.float64) / columns**0.5
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    S[:K] = torch.arange(9.0, 9.0 - K, -1.0, dtype=torch.float64)
    W = ((U * S) @ Vh).float()
    U, S, _ = torch.linalg.svd(W.double(), full_matrices=False)
    noise = torch.randn(rows, 2, generator=random, dtype=torch.float64)
    middle = U.shape[1] // 2
    X = torch.stack(
        [
            U[:, 1] + 0.2 * U[:, 9],
            U[:, middle],
            U[:, middle] + 0.8 * noise[:, 0] / noise[:, 0].norm(),
            0.4 * U[:, middle] + noise[:, 0] / noise[:, 0].norm(),
            noise[:, 1],
            U @ (U.mT @ noise[:, 1]),
            U[:, 0] + U[:, 1] + U[:, 2] + U[:, 3] + U[:, 4] + U[:, 5],
        ],
        dim=1,
    )
    return W, U, S, X / X.norm(dim=0)


def decide(W: Tensor, U: Tensor, S: Tensor, X: Tensor, threshold: float, exact_below: int) -> list[Overlap]:
    return overlaps(Operator(W), U[:, :K], S[:K], X, threshold, exact_below=exact_below)


@settings(max_examples=8)
@given(
    st.sampled_from([(90, 90), (60, 100), (100, 60)]), st.integers(0, 2**31), st.sampled_from([0.1, 0.5, 0.9])
)
def test_answers_are_those_of_the_full_svd(shape: tuple[int, int], seed: int, threshold: float) -> None:
    W, U, S, X = case(*shape, seed)
    truth = (U.mT @ X).abs().amax(0)
    for exact_below in (0, 1000):
        answers = decide(W, U, S, X, threshold, exact_below)
        for answer, cosine in zip(answers, truth.tolist(), strict=True):
            if abs(cosine - threshold) > 1e-3:
                assert answer.resembles == (cosine >= threshold)
            assert answer.cosine <= cosine + 1e-3
            if answer.certificate == "exact":
                assert answer.cosine == pytest.approx(cosine, abs=1e-6)
    torch.testing.assert_close(largest_cosines(Operator(W), X), truth, rtol=0, atol=1e-6)


def test_each_certificate_decides_what_it_can() -> None:
    W, U, S, X = case(400, 400, 0)
    answers = decide(W, U, S, X, 0.5, 0)
    assert [(answer.resembles, answer.certificate) for answer in answers] == [
        (True, "leading"),
        (True, "lanczos"),
        (True, "exact"),
        (False, "lanczos"),
        (False, "lanczos"),
        (False, "lanczos"),
        (False, "rest"),
    ]


def test_outside_the_range_of_a_tall_weight_there_is_no_singular_vector() -> None:
    W, U, S, _ = case(120, 40, 0)
    outside = torch.randn(120, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    outside = outside - U @ (U.mT @ outside)
    for exact_below in (0, 1000):
        (answer,) = decide(W, U, S, outside / outside.norm(), 0.5, exact_below)
        assert not answer.resembles


def test_lanczos_ends_early_in_an_invariant_subspace() -> None:
    """All singular values equal: every direction is a singular vector."""
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, S = torch.eye(50, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    (answer,) = overlaps(Operator(torch.eye(50)), U, S, x / x.norm(), 0.5, exact_below=0)
    assert (answer.resembles, answer.certificate) == (True, "lanczos")


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_no_atom_is_heavier_than_the_christoffel_function(n: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    atoms = torch.rand(30, generator=random, dtype=torch.float64)
    masses = torch.rand(30, generator=random, dtype=torch.float64) ** 4
    masses = masses / masses.sum()
    # Lanczos on diag(atoms) from √masses gives the measure's Jacobi matrix.
    Q = masses.sqrt().unsqueeze(1)
    alpha, beta = [], []
    for _ in range(n):
        w = atoms * Q[:, -1]
        alpha.append(float(Q[:, -1] @ w))
        for _ in range(2):
            w = w - Q @ (Q.mT @ w)
        beta.append(float(w.norm()))
        Q = torch.cat([Q, (w / w.norm()).unsqueeze(1)], dim=1)
    bound = christoffel(
        torch.tensor(alpha, dtype=torch.float64), torch.tensor(beta[:-1], dtype=torch.float64), atoms
    )
    assert bool((masses <= bound * (1 + 1e-9)).all())
    assert bool((bound <= 1 + 1e-12).all())
