"""The report's measures against their formulas on dense matrices."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loramend.contracts.report import EnergySplit
from loramend.spectrum.factored import svd
from loramend.spectrum.measures import base_comparison, energy_split, robustness, spectrum
from tests.support_references import exact_subspace
from tests.support_updates import LargestTensor, dense, make_update

SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.floats(-4, 4).filter(lambda s: abs(s) > 1e-3))
def test_spectrum(seed: int, scale: float) -> None:
    update = make_update(seed=seed, scale=scale)
    delta = dense(update)
    sigma = torch.linalg.svdvals(delta)[: update.rank]
    p = sigma / sigma.sum()
    entropy = float(-(p * p.log()).sum())
    got = spectrum(svd(update).S)
    assert got.sigma == pytest.approx(sigma.tolist(), rel=1e-9)
    assert got.norm == pytest.approx(float(delta.norm()))
    assert got.stable_rank == pytest.approx(float(delta.norm() ** 2 / sigma[0] ** 2))
    assert got.spectral_entropy == pytest.approx(entropy)
    assert got.effective_rank == pytest.approx(math.exp(entropy))
    assert got.concentration == pytest.approx(float(p[0]))


def test_spectrum_of_a_zero_update() -> None:
    got = spectrum(torch.zeros(4))
    assert (got.sigma, got.norm, got.stable_rank, got.spectral_entropy) == ([0.0] * 4, 0.0, None, None)


@given(SEEDS)
def test_robustness(seed: int) -> None:
    update = make_update(seed=seed, scale=0.4)
    A = update.A.double()
    eigenvalues = torch.linalg.eigvalsh(A @ A.mT)
    p = eigenvalues / eigenvalues.sum()
    got = robustness(update)
    assert got is not None
    assert got.variance_constant == pytest.approx(float(A.square().sum()) / 4)
    assert got.kernel_margin == pytest.approx(1 - 0.16 * float(eigenvalues[-1]))
    assert got.kernel_retained == pytest.approx(0.16 * float(A.square().sum()) / 18)
    assert got.renyi_entropy["1"] == pytest.approx(float(-(p * p.log()).sum()))
    assert got.renyi_entropy["2"] == pytest.approx(-math.log(float(p.square().sum())))
    assert got.renyi_entropy["inf"] == pytest.approx(-math.log(float(p.max())))
    assert got.effective_rank == pytest.approx(math.exp(got.renyi_entropy["1"]))


def test_robustness_of_pefts_default_initialisation_and_of_zero() -> None:
    torch.manual_seed(0)
    A = torch.empty(64, 512)
    torch.nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    update = make_update(shape=(24, 512), rank=64)
    got = robustness(replace(update, A=A))
    assert got is not None
    assert got.variance_constant == pytest.approx(1 / 3, rel=0.02)
    assert robustness(replace(update, A=torch.zeros_like(A))) is None


@given(SEEDS)
def test_base_comparison(seed: int) -> None:
    update = make_update(seed=seed, scale=-0.5, shape=(50, 40))
    W = torch.randn(50, 40, generator=torch.Generator().manual_seed(seed))
    U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    u, s, vh = torch.linalg.svd(dense(update), full_matrices=False)
    got = base_comparison(svd(update), update.scale, exact_subspace(W, 36))
    alignment = max((U[:, :32].mT @ u[:, 0]).abs().max(), (Vh[:32] @ vh[0]).abs().max())
    assert got.sigma_max_base == pytest.approx(float(S[0]), rel=1e-6)
    assert got.strength_scaled == pytest.approx(float(S[0] / s[0]), rel=1e-6)
    assert got.strength == pytest.approx(float(S[0] / (s[0] / 0.5)), rel=1e-6)
    assert got.alignment == pytest.approx(float(alignment), rel=1e-5)


def test_base_comparison_of_zeros() -> None:
    update = make_update()
    zero = svd(replace(update, B=torch.zeros_like(update.B)))
    assert base_comparison(zero, 2.0, exact_subspace(torch.eye(24, 18), 32)).strength is None
    flat = base_comparison(svd(update), 2.0, exact_subspace(torch.zeros(24, 18), 32))
    assert (flat.sigma_max_base, flat.strength, flat.alignment) == (0.0, 0.0, None)


@given(SEEDS, st.integers(1, 12))
def test_energy_split(seed: int, k: int) -> None:
    update = make_update(seed=seed)
    D = torch.randn(24, 18, generator=torch.Generator().manual_seed(seed + 1))
    subspace = exact_subspace(D, k)
    delta = dense(update)
    P, Q = (X.double() @ X.double().mT for X in (subspace.U, subspace.V))
    inside, outside = P @ delta, delta - P @ delta
    total = delta.square().sum()
    got = energy_split(update, subspace)
    assert got.full == pytest.approx(float((inside @ Q).square().sum() / total), abs=1e-6)
    rest = (inside - inside @ Q).square().sum() + (outside @ Q).square().sum()
    assert got.partial == pytest.approx(float(rest / total), abs=1e-6)
    assert got.full + got.partial + got.off == pytest.approx(1)
    assert got.expected_full == k**2 / (24 * 18)
    assert (got.k, got.displacement_norm) == (k, pytest.approx(float(D.norm()), rel=1e-6))


def test_energy_split_of_a_zero_update() -> None:
    update = make_update()
    got = energy_split(replace(update, scale=0.0), exact_subspace(torch.eye(24, 18), 3))
    assert isinstance(got, EnergySplit)
    assert (got.full, got.partial, got.off) == (0.0, 0.0, 0.0)


def test_measures_make_nothing_of_the_updates_size() -> None:
    update = make_update(shape=(100_000, 90_000), rank=4)
    subspace = exact_subspace(torch.randn(100_000, 2), 2)
    subspace = replace(subspace, V=torch.linalg.qr(torch.randn(90_000, 2)).Q)
    with LargestTensor() as made:
        usv = svd(update)
        spectrum(usv.S)
        robustness(update)
        base_comparison(usv, update.scale, subspace)
        energy_split(update, subspace)
    assert made.elements <= 100_000 * 4
