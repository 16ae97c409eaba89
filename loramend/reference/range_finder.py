"""Leading singular triplets of a large matrix by a randomised range finder that keeps its power iterates.

Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1; Musco and Musco, "Randomized block
Krylov methods for stronger and faster approximate singular value decomposition", NeurIPS 2015, algorithm 2.
"""

import math

import torch
from torch import Tensor

from loramend.reference.dense import frobenius
from loramend.reference.models import Subspace

# Five iterations with k columns, every iterate kept, take as long as three with 2k columns where only the
# last is kept, and leave a twentieth of the error. With fewer columns than k, a cluster of k equal
# singular values would not be found whole.
POWER_ITERATIONS = 5
LEAST_COLUMNS = 32
# A smaller side of at most this is decomposed exactly, as is one that the iterates would span.
EXACT_SIDE = 192
# Norms of matrices whose products stay within float32; others are scaled first.
SAFE_NORMS = (1e-12, 1e12)
# Rows whose inner products are taken at a time in float64.
GRAM_ROWS = 8192


def leading_triplets(M: Tensor, k: int, *, norm: float | None = None, seed: int = 0) -> Subspace:
    """The leading k singular triplets of M (out, in), float32 and finite; results on M's device.

    norm  ‖M‖_F, where it is known

    Exact where the smaller side is at most 192 or 6k. Fewer than k come back where M's numerical rank
    is lower, and none for M = 0 (norm 0, energy 1). The same seed draws the same test matrix on every device.
    """
    norm = frobenius(M) if norm is None else norm
    if norm == 0:
        return empty_subspace(*M.shape, device=M.device)
    scale = 1.0 if SAFE_NORMS[0] <= norm <= SAFE_NORMS[1] else norm
    if scale != 1.0:
        M = M / scale
    if min(M.shape) <= max(EXACT_SIDE, (POWER_ITERATIONS + 1) * k):
        U, S, Vh = torch.linalg.svd(M, full_matrices=False)
        V = Vh.mT
    else:
        U, S, V = _randomised(M, k, seed)
    k = min(k, _rank(S, M.shape))
    S = S[:k] * scale
    return Subspace(U=U[:, :k].contiguous(), S=S, V=V[:, :k].contiguous(), norm=norm, energy=share(S, norm))


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


def columns(k: int) -> int:
    """How many columns the blocks have whose products find k triplets."""
    return max(k, LEAST_COLUMNS)


def _randomised(M: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, k'), S (k',), V (in, k') of M, k' <= k, by 2(q + 1) products with blocks of b columns, b = k or
    32 where that is more.

    P spans MΩ, (MMᵀ)MΩ, …, (MMᵀ)^q MΩ; W = MᵀP comes along, and the triplets of PPᵀM follow from WᵀW.
    """
    out_features, in_features = M.shape
    b = columns(k)
    width = (POWER_ITERATIONS + 1) * b
    P = torch.empty(width, out_features, device=M.device).mT
    W = torch.empty(width, in_features, device=M.device).mT
    generator = torch.Generator().manual_seed(seed)
    Y = M @ torch.randn(in_features, b, generator=generator).to(M.device)  # MΩ
    for start in range(0, width, b):
        new = slice(start, start + b)
        P[:, new] = _orthonormal(Y, P[:, :start])
        W[:, new] = M.mT @ P[:, new]
        if start + b < width:
            Y = M @ torch.linalg.qr(W[:, new])[0]
    squares, X = torch.linalg.eigh(_gram(W))  # ascending
    S = squares[-k:].flip(0).clamp_min(0).sqrt()
    k = _rank(S, M.shape)
    S, X = S[:k], X[:, -k:].flip(1)
    V, R = torch.linalg.qr(W @ (X / S).float())  # orthonormal but for rounding, which small σ magnify
    return P @ X.float(), S.float(), V * R.diagonal().sign()


def _orthonormal(Y: Tensor, P: Tensor) -> Tensor:
    """An orthonormal basis (out, b) of what the columns of Y (out, b) add to those of P, which are
    orthonormal or zero; zero columns where they add rounding alone."""
    floor = torch.finfo(Y.dtype).eps * math.sqrt(Y.shape[0]) * torch.linalg.vector_norm(Y, dim=0).amax()
    Q, R = torch.linalg.qr(Y - P @ (P.mT @ Y))
    added = R.diagonal().abs() > floor
    if P.shape[1]:  # again, since of what little is left of a column much may be rounding along P
        Q = torch.linalg.qr(Q - P @ (P.mT @ Q))[0]
    return torch.where(added, Q, 0.0)


def _gram(W: Tensor) -> Tensor:
    """WᵀW in float64."""
    G = torch.zeros(W.shape[1], W.shape[1], dtype=torch.float64, device=W.device)
    for start in range(0, W.shape[0], GRAM_ROWS):
        rows = W[start : start + GRAM_ROWS].double()
        G += rows.mT @ rows
    return G


def _rank(S: Tensor, shape: torch.Size) -> int:
    """How many σ are more than rounding: over eps·√max(out, in)·σ_1, eps that of float32."""
    floor = torch.finfo(torch.float32).eps * math.sqrt(max(shape)) * S[0]
    return int((floor < S).sum())
