"""An update divided over a pair of subspaces, in factor space.

With orthonormal U (out, k), V (in, k) and ΔW = s·BA, B∥ = U(UᵀB), B⊥ = B - B∥, A∥ = (AV)Vᵀ, A⊥ = A - A∥:

    full = s·B∥A∥        partial = s·(B∥A⊥ + B⊥A∥)        off = s·B⊥A⊥
"""

from dataclasses import dataclass

from torch import Tensor

from loramend.spectrum.factored import Factored


@dataclass(frozen=True)
class Split:
    """The projected factors, float64, s folded into B's: B_par, B_perp (out, r), A_par, A_perp (r, in); and
    the squared Frobenius norms of the three components."""

    B_par: Tensor
    B_perp: Tensor
    A_par: Tensor
    A_perp: Tensor
    full: float
    partial: float
    off: float

    @property
    def total(self) -> float:
        return self.full + self.partial + self.off


def split(X: Factored, U: Tensor | None, V: Tensor | None) -> Split:
    """X = s·BA over U (out, k) and V (in, k), both with orthonormal columns. None leaves that side whole: its
    projector is the identity, so its perpendicular factor is zero and `off` vanishes."""
    B, A = X.B.double() * X.scale, X.A.double()
    B_par, A_par = B, A
    if U is not None:
        U = U.to(B)
        B_par = U @ (U.mT @ B)
    if V is not None:
        V = V.to(A)
        A_par = (A @ V) @ V.mT
    B_perp, A_perp = B - B_par, A - A_par
    G_par, G_perp = B_par.mT @ B_par, B_perp.mT @ B_perp  # (r, r)
    H_par, H_perp = A_par @ A_par.mT, A_perp @ A_perp.mT

    def energy(G: Tensor, H: Tensor) -> float:
        return max(0.0, float((G * H).sum()))

    return Split(
        B_par=B_par,
        B_perp=B_perp,
        A_par=A_par,
        A_perp=A_perp,
        full=energy(G_par, H_par),
        partial=energy(G_par, H_perp) + energy(G_perp, H_par),
        off=energy(G_perp, H_perp),
    )
