"""Leading singular triplets of a large matrix by a randomised range finder.

Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53 (2011): algorithm 4.4
(range finder with orthonormalised power iterations), then 5.1 (direct SVD).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from loramend.reference.dense import peak
from loramend.reference.models import Subspace

POWER_ITERATIONS = 3
# More columns than the k asked for: k of them, and never fewer than this.
LEAST_OVERSAMPLING = 16
# A smaller side of at most this, or this many times k, is decomposed exactly for about the products' cost.
EXACT_SIDE = 192
EXACT_TIMES_K = 6
# Entries whose squares stay within float32; outside it the matrix is scaled first.
SAFE_RANGE = (1e-15, 1e15)


class Operator(Protocol):
    """A linear map M (out, in) known by its products; float32."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where products run."""
        ...

    def times(self, X: Tensor) -> Tensor:
        """MX (out, n) for X (in, n)."""
        ...

    def adjoint_times(self, Y: Tensor) -> Tensor:
        """MᵀY (in, n) for Y (out, n)."""
        ...

    def norm(self) -> float:
        """‖M‖_F."""
        ...


@dataclass(frozen=True)
class Dense:
    """A matrix M (out, in), float32, as an operator."""

    M: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.M.shape[0]), int(self.M.shape[1])

    @property
    def device(self) -> torch.device:
        return self.M.device

    def times(self, X: Tensor) -> Tensor:
        return self.M @ X

    def adjoint_times(self, Y: Tensor) -> Tensor:
        return self.M.mT @ Y

    def norm(self) -> float:
        # Row by row in float32, the rows' norms in float64: exact to float32's digits and without a copy of
        # M.
        return float(torch.linalg.vector_norm(torch.linalg.vector_norm(self.M, dim=1).double()))


def leading_triplets(M: Tensor, k: int, *, seed: int = 0) -> Subspace:
    """The leading k singular triplets of M (out, in), float32 and finite; results on M's device.

    Exact where the smaller side is at most 192 or 6k, else `leading_triplets_of`. Fewer than k come back
    where M's numerical rank is lower, and none for M = 0 (norm 0, energy 1).
    """
    largest = peak(M)
    if largest == 0:
        return empty_subspace(*M.shape, device=M.device)
    scale = 1.0 if SAFE_RANGE[0] <= largest <= SAFE_RANGE[1] else largest
    operator = Dense(M if scale == 1.0 else M / scale)
    if min(M.shape) <= max(EXACT_SIDE, EXACT_TIMES_K * k):
        U, S, Vh = torch.linalg.svd(operator.M, full_matrices=False)
        found = _cut(U, S, Vh.mT, k, operator.norm())
    else:
        found = leading_triplets_of(operator, k, seed=seed)
    return Subspace(U=found.U, S=found.S * scale, V=found.V, norm=found.norm * scale, energy=found.energy)


def leading_triplets_of(operator: Operator, k: int, *, seed: int = 0) -> Subspace:
    """The leading k singular triplets of an operator (out, in), by eight products with blocks of 2k columns.

    Oversampling equals k, and each of three power iterations is orthonormalised on both sides: with fewer
    of either, the trailing directions of a slowly decaying spectrum come out tens of degrees off. The same
    seed draws the same test matrix on every device.
    """
    out_features, in_features = operator.shape
    block = min(k + max(k, LEAST_OVERSAMPLING), out_features, in_features)
    generator = torch.Generator().manual_seed(seed)
    Omega = torch.randn(in_features, block, generator=generator).to(operator.device)
    Q = _orthonormal(operator.times(Omega))  # (out, 2k)
    for _ in range(POWER_ITERATIONS):
        Z = _orthonormal(operator.adjoint_times(Q))  # (in, 2k)
        Q = _orthonormal(operator.times(Z))  # (out, 2k)
    # QᵀM = Rᵀ Zᵀ: its SVD is that of a 2k x 2k core.
    Z, R = torch.linalg.qr(operator.adjoint_times(Q))
    U, S, Vh = torch.linalg.svd(R.mT)
    k = min(k, block)
    return _cut(Q @ U[:, :k], S[:k], Z @ Vh.mT[:, :k], k, operator.norm())


def empty_subspace(out_features: int, in_features: int, *, device: torch.device | None = None) -> Subspace:
    """The subspace of the zero matrix: k = 0, norm 0, energy 1 (nothing is missing)."""
    return Subspace(
        U=torch.empty(out_features, 0, device=device),
        S=torch.empty(0, device=device),
        V=torch.empty(in_features, 0, device=device),
        norm=0.0,
        energy=1.0,
    )


def first(subspace: Subspace, k: int) -> Subspace:
    """The leading k triplets of those given."""
    if k >= subspace.k:
        return subspace
    S = subspace.S[:k].clone()
    return Subspace(
        U=subspace.U[:, :k].contiguous(),
        S=S,
        V=subspace.V[:, :k].contiguous(),
        norm=subspace.norm,
        energy=share(S, subspace.norm),
    )


def smallest_k(subspace: Subspace, energy: float) -> int:
    """The fewest leading triplets that hold `energy` of ‖M‖_F²; all of them where they hold less."""
    if subspace.k == 0:
        return 0
    held = torch.cumsum((subspace.S.double() / subspace.norm) ** 2, dim=0)
    return min(int((held < energy).sum()) + 1, subspace.k)


def share(S: Tensor, norm: float) -> float:
    """ΣS²/norm², at most 1; 1 where norm is 0."""
    return min(1.0, float(((S.double() / norm) ** 2).sum())) if norm > 0 else 1.0


def _orthonormal(X: Tensor) -> Tensor:
    """An orthonormal basis (n, c) of the columns of X (n, c)."""
    Q: Tensor = torch.linalg.qr(X)[0]
    return Q


def _cut(U: Tensor, S: Tensor, V: Tensor, k: int, norm: float) -> Subspace:
    """At most k triplets, without those that are rounding alone: σ_i <= eps·√max(out, in)·σ_1."""
    floor = torch.finfo(S.dtype).eps * math.sqrt(max(U.shape[0], V.shape[0])) * float(S[0])
    k = min(k, int((floor < S).sum()))
    S = S[:k].clone()
    return Subspace(U=U[:, :k].contiguous(), S=S, V=V[:, :k].contiguous(), norm=norm, energy=share(S, norm))
