"""Linear algebra of factored matrices X = s·BA, B (…, out, r), A (…, r, in), exact and without forming X.

Everything goes through QR of both factors and the small core between them, X = Q_B·(s·R_B R_Aᵀ)·Q_Aᵀ, in
float64: backward stable, whatever the conditioning of the factors. Time O((out + in)r²) and memory
O((out + in)r) a matrix. Leading batch dimensions are carried along; r may exceed out and in, and X may be
rank-deficient or zero.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from loramend.adapter.model import Update


class Factored(Protocol):
    """s·BA: an Update or Factors. A batched `scale` has the batch's shape."""

    @property
    def B(self) -> Tensor: ...
    @property
    def A(self) -> Tensor: ...
    @property
    def scale(self) -> float | Tensor: ...


class Factors(NamedTuple):
    """s·BA, B (…, out, r), A (…, r, in)."""

    B: Tensor
    A: Tensor
    scale: float | Tensor = 1.0


class Svd(NamedTuple):
    """X = U diag(S) Vᵀ, thin and float64: U (…, out, m), S (…, m) descending, V (…, in, m), with
    m = min(out, in, r)."""

    U: Tensor
    S: Tensor
    V: Tensor


def _expand(scale: float | Tensor, dims: int) -> float | Tensor:
    """The scale, shaped to multiply tensors with `dims` trailing dimensions."""
    return scale.reshape(scale.shape + (1,) * dims) if isinstance(scale, Tensor) else scale


def _triangle(M: Tensor) -> Tensor:
    """R (…, min(rows, columns), columns) of M = QR, float64."""
    R: Tensor = torch.linalg.qr(M.double(), mode="r").R
    return R


def _core(X: Factored) -> Tensor:
    """s·R_B R_Aᵀ (…, min(out, r), min(in, r)): X in orthonormal coordinates of both sides, float64."""
    return _triangle(X.B) @ _triangle(X.A.mT).mT * _expand(X.scale, 2)


def svd(X: Factored) -> Svd:
    """Exact thin SVD. Columns of U and V are orthonormal even where singular values are zero."""
    Q_B, R_B = torch.linalg.qr(X.B.double())  # (…, out, p), (…, p, r), p = min(out, r)
    Q_A, R_A = torch.linalg.qr(X.A.double().mT)  # (…, in, q), (…, q, r), q = min(in, r)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.mT * _expand(X.scale, 2), full_matrices=False)
    return Svd(Q_B @ U, S, Q_A @ Vh.mT)


def singular_values(X: Factored) -> Tensor:
    """σ_1 ≥ … ≥ σ_m (…, m), m = min(out, in, r), float64."""
    S: Tensor = torch.linalg.svdvals(_core(X))
    return S


def factor_singular_values(F: Tensor) -> Tensor:
    """Singular values of one factor (…, r, n), descending, float64."""
    S: Tensor = torch.linalg.svdvals(_triangle(F.mT))
    return S


def from_svd(usv: Svd, rank: int) -> Factors:
    """The leading `rank` triplets as balanced factors U√S, √S Vᵀ, padded with zeros to exactly `rank`."""
    keep = min(rank, usv.S.shape[-1])
    root = usv.S[..., :keep].sqrt().unsqueeze(-2)  # (…, 1, keep)
    pad = (0, rank - keep)
    B = torch.nn.functional.pad(usv.U[..., :keep] * root, pad)
    A = torch.nn.functional.pad(usv.V[..., :keep] * root, pad).mT
    return Factors(B, A)


def truncate(X: Factored, rank: int) -> tuple[Factors, Tensor]:
    """The best approximation of X of that rank (Eckart and Young), float64, and the share of ‖X‖_F² that it
    loses (…,).

    Equals the truncated dense SVD. Beyond X's own rank the factors are padded with zeros and nothing is lost.
    """
    usv = svd(X)
    energy = usv.S.square()
    total = energy.sum(-1)
    loss = energy[..., rank:].sum(-1) / total.where(total > 0, 1.0)
    return from_svd(usv, rank), loss


def combine(*terms: tuple[float, Factored]) -> Factors:
    """Σ c_i X_i exactly, as one factored matrix of the summed rank, float64. Unbatched or equally batched."""
    B = torch.cat([X.B.double() * (c * _expand(X.scale, 2)) for c, X in terms], dim=-1)
    A = torch.cat([X.A.double() for _, X in terms], dim=-2)
    return Factors(B, A)


def norm(X: Factored) -> Tensor:
    """‖X‖_F (…,), float64."""
    size: Tensor = torch.linalg.matrix_norm(_core(X))
    return size


def same(X: Factored, Y: Factored) -> bool:
    """Whether both have the same factors and scale, bit for bit."""
    return bool(X.scale == Y.scale) and torch.equal(X.B, Y.B) and torch.equal(X.A, Y.A)


def distance(X: Factored, Y: Factored) -> Tensor:
    """‖X - Y‖_F (…,), float64, without cancellation: from the factored difference, not from norms."""
    return norm(combine((1.0, X), (-1.0, Y)))


def inner(X: Factored, Y: Factored) -> Tensor:
    """⟨X, Y⟩_F = s_X s_Y tr(B_XᵀB_Y · A_Y A_Xᵀ) (…,), float64, from r_X x r_Y products."""
    G_B = X.B.double().mT @ Y.B.double()
    G_A = X.A.double() @ Y.A.double().mT
    return (G_B * G_A).sum((-2, -1)) * X.scale * Y.scale


def cosine(X: Factored, Y: Factored) -> Tensor:
    """⟨X, Y⟩/(‖X‖‖Y‖) in [-1, 1] (…,), float64; 0 where either is zero."""
    size = norm(X) * norm(Y)
    return (inner(X, Y) / size.where(size > 0, 1.0)).where(size > 0, 0.0).clamp(-1.0, 1.0)


def gram(terms: Sequence[Factored]) -> Tensor:
    """All ⟨X_i, X_j⟩_F (n, n) of unbatched factored matrices of one shape, float64."""
    B = torch.cat([X.B.double() * X.scale for X in terms], dim=1)  # (out, Σr)
    A = torch.cat([X.A.double() for X in terms], dim=0)  # (Σr, in)
    products = (B.mT @ B) * (A @ A.mT)  # (Σr, Σr)
    ranks = [X.A.shape[0] for X in terms]
    rows = [block.sum(0) for block in torch.split(products, ranks)]
    return torch.stack([block.sum(0) for block in torch.split(torch.stack(rows).mT, ranks)])


def batches(updates: Iterable[Update], max_bytes: int = 1 << 26) -> Iterator[list[Update]]:
    """Updates grouped by the shape of their factors, in batches whose float64 factors stay under `max_bytes`
    (a single update may exceed it)."""
    groups: defaultdict[tuple[int, int, int], list[Update]] = defaultdict(list)
    for update in updates:
        groups[*update.shape, update.rank].append(update)
    for (out, in_, rank), group in groups.items():
        size = max(1, max_bytes // (8 * rank * (out + in_)))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def svds(updates: Iterable[Update], max_bytes: int = 1 << 26) -> Iterator[tuple[Update, Svd]]:
    """The SVD of every update, same shapes computed together; in the order of `batches`."""
    for batch in batches(updates, max_bytes):
        U, S, V = svd(
            Factors(
                torch.stack([update.B for update in batch]),
                torch.stack([update.A for update in batch]),
                torch.tensor(
                    [update.scale for update in batch], dtype=torch.float64, device=batch[0].B.device
                ),
            )
        )
        for i, update in enumerate(batch):
            yield update, Svd(U[i], S[i], V[i])
