"""Measures of an update's rows and entries, exact, without forming the update."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from loramend.spectrum.factored import Factored, Factors, combine, svd

TOP_ROWS = 8
"""How many rows `top` is taken over."""
BLOCK_ELEMENTS = 1 << 20
"""Numbers held at a time beside the factors: 8 MiB."""


class Rows(NamedTuple):
    """top: share of ‖X‖_F² in the TOP_ROWS rows that hold most; sparsity: Hoyer's, of the rows' norms, 0
    where all rows weigh the same and 1 where one holds all. None where it is not defined."""

    top: float | None
    sparsity: float | None


def rows(X: Factored) -> Rows:
    """How the energy of X = s·BA (out, in) lies over its rows, in time O((out + in)r²)."""
    triangle: Tensor = torch.linalg.qr(X.A.double().mT, mode="r").R  # (min(in, r), r)
    norms = torch.linalg.vector_norm(X.B.double() @ triangle.mT, dim=1)  # (out,), without s: it cancels
    largest = float(norms.max())
    if largest == 0:
        return Rows(None, None)
    norms = norms / largest
    energy = norms.square()
    total = float(energy.sum())
    top = float(energy.topk(min(TOP_ROWS, len(energy))).values.sum()) / total
    root = math.sqrt(len(norms))
    if root == 1:
        return Rows(min(1.0, top), None)
    hoyer = (root - float(norms.sum()) / math.sqrt(total)) / (root - 1)
    return Rows(min(1.0, top), min(1.0, max(0.0, hoyer)))


def kurtosis(X: Factored) -> float | None:
    """E(x - μ)⁴/(E(x - μ)²)² over the entries of X (out, in): 3 for normal ones. None where all are equal.

    X less its mean is factored too, at rank r + 1. Fourth moments come from Gram matrices of products of two
    columns, O((out + in)r⁴), or where rank is high from a block of rows at a time, O(out·in·r): whichever is
    less work, both exact.
    """
    out, in_ = X.B.shape[0], X.A.shape[1]
    B, A = X.B.double(), X.A.double()
    mean = float(B.sum(0) @ A.sum(1)) / (out * in_)
    ones = Factors(B.new_ones(out, 1), A.new_ones(1, in_))
    U, S, V = svd(combine((1.0, Factors(B, A)), (-mean, ones)))
    # What rounding leaves of a constant matrix is no variance.
    size = float(torch.linalg.vector_norm(B) * torch.linalg.vector_norm(A))
    if float(S[0]) <= 1e-14 * size:
        return None
    S = S / S[0]
    P, Q = U * S.sqrt(), V * S.sqrt()  # (out, m), (in, m): balanced, so that little cancels
    m = P.shape[1]
    pairs = m * (m + 1) // 2
    gram = (out + in_) * pairs**2 < out * in_ * m and pairs**2 <= BLOCK_ELEMENTS
    fourth = _by_pairs(P, Q) if gram else _by_rows(P, Q)
    return out * in_ * fourth / float(S.square().sum()) ** 2


def _by_pairs(P: Tensor, Q: Tensor) -> float:
    """Σ (PQᵀ)⁴ = Σ_ab w_a w_b (Σ_i p_ia p_ib)(Σ_j q_ja q_jb), a and b over pairs of columns, w = 2 where a
    pair's columns differ."""
    m = P.shape[1]
    first, second = torch.triu_indices(m, m, device=P.device)
    weights = torch.where(first == second, 1.0, 2.0).to(P)
    products = P.new_ones(len(first), len(first))
    for F in (P, Q):
        gram = torch.zeros_like(products)
        for block in torch.split(F, max(1, BLOCK_ELEMENTS // len(first))):
            p = block[:, first] * block[:, second]
            gram += p.mT @ p
        products *= gram
    return float(weights @ products @ weights)


def _by_rows(P: Tensor, Q: Tensor) -> float:
    """Σ (PQᵀ)⁴, a block of rows at a time."""
    blocks = torch.split(P, max(1, BLOCK_ELEMENTS // Q.shape[0]))
    return math.fsum(float((block @ Q.mT).square().square().sum()) for block in blocks)
