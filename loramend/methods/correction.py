"""CSU's closed form on any pair of subspaces: shared by csu, random_subspace and the placebo controls."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.steps import CsuStep, RandomSubspaceStep
from loramend.methods.base import Outcome, left_alone, refactored
from loramend.spectrum.factored import Factored, Factors, from_svd, svd, truncate
from loramend.spectrum.split import split

RANK_R_TOLERANCE = 1e-12
"""‖rank-r form - X‖_F/‖ΔW‖_F under which X counts as having rank r."""


@dataclass(frozen=True)
class Correction:
    """The corrected update, float64, what truncation lost of ‖X‖_F², and the numbers behind it."""

    factors: Factors
    truncation_loss: float
    values: dict[str, float]


def correct(X: Factored, U: Tensor, V: Tensor, params: CsuStep | RandomSubspaceStep) -> Correction:
    """A nonzero update attenuated inside or outside the subspaces of U (out, k) and V (in, k), orthonormal
    columns.

    Attenuating inside, form `component` shrinks what reads V or writes U, at rank r:

        X = (I - (1 - c)UUᵀ)·ΔW·(I - (1 - c)VVᵀ),  c = 1/(1 + λ)

    with one side alone it minimises ‖X - ΔW‖² + λ‖X_inside‖². Outside, form `component` minimises
    ‖X - ΔW‖² + λ_p‖X_partial‖² + λ_o‖X_off‖² with λ_j = λ·E_j/E:

        X = full + c_p·partial + c_o·off,  c_j = 1/(1 + λ_j)

    Form `direction` minimises (σ' - σ_i)² + λ e_i σ'² along each singular direction of ΔW = Σσ_i u_i v_iᵀ:

        σ_i' = σ_i/(1 + λe_i),  e_i = 1 - ‖Uᵀu_i‖²‖Vᵀv_i‖²

    or, inside, e_i = 1 - (1 - ‖Uᵀu_i‖²)(1 - ‖Vᵀv_i‖²).

    `sides` left compares outputs (U) alone, right inputs (V) alone. Outside, the other side's projector is
    then the identity, so that `off` is empty, `partial` is the rest of the update, and X keeps rank r without
    truncation.

    Output rank `same` truncates X, of rank up to 2r, to r; `double` keeps it whole at rank 2r. Where X has
    rank r by itself (c_o = c_p², or no off component) it is (B∥ + c_p B⊥)(A∥ + c_p A⊥), at rank r under
    either.
    """
    left = None if params.sides == "right" else U
    right = None if params.sides == "left" else V
    if params.form == "direction":
        return _by_direction(X, left, right, params)
    if params.attenuate == "inside":
        return _inside(X, left, right, params.penalty)

    parts = split(X, left, right)
    share_partial, share_off = parts.partial / parts.total, parts.off / parts.total
    c_p = 1.0 / (1.0 + params.penalty * share_partial)
    c_o = 1.0 / (1.0 + params.penalty * share_off)
    values = {
        "share_full": parts.full / parts.total,
        "share_partial": share_partial,
        "share_off": share_off,
        "c_partial": c_p,
        "c_off": c_o,
    }
    if abs(c_o - c_p**2) * share_off**0.5 <= RANK_R_TOLERANCE:
        rank_r = Factors(parts.B_par + c_p * parts.B_perp, parts.A_par + c_p * parts.A_perp)
        return Correction(rank_r, 0.0, values)
    # [B∥ B⊥]·([[1, c_p], [c_p, c_o]] ⊗ I_r)·[A∥; A⊥]
    B = torch.cat([parts.B_par + c_p * parts.B_perp, c_p * parts.B_par + c_o * parts.B_perp], dim=1)
    A = torch.cat([parts.A_par, parts.A_perp], dim=0)
    whole = Factors(B, A)  # rank 2r
    if params.output_rank == "double":
        return Correction(whole, 0.0, values)
    factors, loss = truncate(whole, X.A.shape[0])
    return Correction(factors, float(loss), values)


def _inside(X: Factored, U: Tensor | None, V: Tensor | None, penalty: float) -> Correction:
    parts = split(X, U, V)
    c = 1.0 / (1.0 + penalty)
    B = parts.B_perp + c * parts.B_par if U is not None else parts.B_par
    A = parts.A_perp + c * parts.A_par if V is not None else parts.A_par
    outside = parts.off if U is not None and V is not None else parts.partial
    values = {"share_inside": 1.0 - outside / parts.total, "c_inside": c}
    return Correction(Factors(B, A), 0.0, values)


def _by_direction(
    X: Factored, U: Tensor | None, V: Tensor | None, params: CsuStep | RandomSubspaceStep
) -> Correction:
    usv = svd(X)
    shares = []  # of each direction's energy inside, (m,) a side
    if U is not None:
        shares.append((U.to(usv.U).mT @ usv.U).square().sum(0))
    if V is not None:
        shares.append((V.to(usv.V).mT @ usv.V).square().sum(0))
    kept = [share if params.attenuate == "outside" else 1.0 - share for share in shares]
    e = (1.0 - torch.stack(kept).prod(0)).clamp(0.0, 1.0)  # (m,)
    factor = 1.0 / (1.0 + params.penalty * e)
    energy = usv.S.square() / usv.S.square().sum()
    values = {
        "e_mean": float((energy * e).sum()),
        "factor_first": float(factor[0]),
        "factor_min": float(factor.min()),
        "factor_max": float(factor.max()),
    }
    return Correction(from_svd(usv._replace(S=usv.S * factor), X.A.shape[0]), 0.0, values)


def outcome(
    update: Update,
    U: Tensor,
    V: Tensor,
    params: CsuStep | RandomSubspaceStep,
    values: Mapping[str, float],
) -> Outcome:
    """The correction as a step's outcome, `values` before its own; penalty 0 leaves the update alone."""
    correction = correct(update, U, V, params)
    values = {**values, **correction.values}
    if params.penalty == 0:
        return left_alone(update, "penalty 0 leaves the update as it is", values)
    return Outcome(
        name=update.name,
        update=refactored(update, correction.factors),
        values=values,
        truncation_loss=correction.truncation_loss,
    )
