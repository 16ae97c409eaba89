"""The report's measures of one update, from its singular values, its factors and the reference subspaces."""

import math

import torch
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.report import BaseComparison, EnergySplit, Robustness, Spectrum
from loramend.reference.models import Subspace
from loramend.spectrum.factored import Svd, factor_singular_values
from loramend.spectrum.split import split

ALIGNMENT_K = 32
"""How many singular vectors of the base weight alignment looks at (arXiv 2601.06305)."""


def spectrum(sigma: Tensor) -> Spectrum:
    """Measures of an update's singular values (m,), descending. Spectral entropy and effective rank after Roy
    and Vetterli, "The effective rank", 2007."""
    sigma = sigma.double()
    top = float(sigma[0])
    norm = float(torch.linalg.vector_norm(sigma))
    if top == 0:
        return Spectrum(
            sigma=sigma.tolist(),
            norm=0.0,
            stable_rank=None,
            spectral_entropy=None,
            effective_rank=None,
            concentration=None,
        )
    p = sigma / sigma.sum()
    entropy = float(torch.special.entr(p).sum())
    return Spectrum(
        sigma=sigma.tolist(),
        norm=norm,
        stable_rank=float((sigma / top).square().sum()),
        spectral_entropy=entropy,
        effective_rank=math.exp(entropy),
        concentration=float(p[0]),
    )


def robustness(update: Update) -> Robustness | None:
    """Recipe measures of arXiv 2505.12871 from A (r, in) and s; None for a zero A."""
    eigenvalues = factor_singular_values(update.A).square()  # of AAᵀ
    total = float(eigenvalues.sum())
    if total == 0:
        return None
    p = eigenvalues / total
    shannon = float(torch.special.entr(p).sum())
    return Robustness(
        variance_constant=total / update.rank,
        kernel_margin=1.0 - update.scale**2 * float(eigenvalues[0]),
        kernel_retained=update.scale**2 * total / update.shape[1],
        renyi_entropy={
            "1": shannon,
            "2": -math.log(float(p.square().sum())),
            "inf": -math.log(float(p[0])),
        },
        effective_rank=math.exp(shannon),
    )


def base_comparison(usv: Svd, scale: float, base: Subspace) -> BaseComparison:
    """The update s·BA = U diag(S) Vᵀ, its scale s beside it, against the leading singular triplets of its
    base weight W (arXiv 2601.06305): `base` holds ALIGNMENT_K of them, or as many as W has."""
    sigma_base = float(base.S[0]) if base.k else 0.0
    top = float(usv.S[0])
    if top == 0:
        return BaseComparison(sigma_max_base=sigma_base, strength=None, strength_scaled=None, alignment=None)
    left = base.U[:, :ALIGNMENT_K].to(usv.U).mT @ usv.U[:, 0]  # (k,)
    right = base.V[:, :ALIGNMENT_K].to(usv.V).mT @ usv.V[:, 0]
    alignment = float(torch.cat([left, right]).abs().max().clamp_max(1.0)) if base.k else None
    return BaseComparison(
        sigma_max_base=sigma_base,
        strength=sigma_base * abs(scale) / top,
        strength_scaled=sigma_base / top,
        alignment=alignment,
    )


def energy_split(update: Update, subspace: Subspace) -> EnergySplit:
    """How ‖ΔW‖_F² divides over the displacement subspace; shares sum to 1, or are 0 for a zero update."""
    parts = split(update, subspace.U, subspace.V)
    total = parts.total or 1.0
    out, in_ = update.shape
    return EnergySplit(
        k=subspace.k,
        displacement_norm=subspace.norm,
        displacement_energy=subspace.energy,
        full=parts.full / total,
        partial=parts.partial / total,
        off=parts.off / total,
        expected_full=subspace.k**2 / (out * in_),
    )
