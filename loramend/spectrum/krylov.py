"""Leading singular triplets of W + BA, converged, without forming the sum: block Krylov with thick restarts.

The randomised range finder of `loramend.reference` is fast and close; this one iterates until each residual
is below a tolerance, which a decision about single singular vectors needs.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

GUARD = 6
"""Triplets iterated beside the wanted ones, so that the last wanted one does not meet the cut."""
BLOCKS = 10
"""Size of the search space in blocks of k + GUARD, before it is restarted."""
BLOCK_ELEMENTS = 1 << 21
"""Entries of W turned to float64 at a time: 16 MiB."""


@dataclass(frozen=True)
class Operator:
    """M = W + BA as a map: `M @ X` and `M.T @ Y`, both in float64, W (rows, columns) read in blocks of rows.

    B (rows, r) and A (r, columns), float64, or None for W alone. `swapped` turns it into its transpose.
    """

    W: Tensor
    B: Tensor | None = None
    A: Tensor | None = None
    swapped: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.W.shape
        return (columns, rows) if self.swapped else (rows, columns)

    @property
    def T(self) -> "Operator":
        return replace(self, swapped=not self.swapped)

    @property
    def device(self) -> torch.device:
        return self.W.device

    def __matmul__(self, X: Tensor) -> Tensor:
        """MX for X (columns, n), float64."""
        rows, columns = self.W.shape
        step = max(1, BLOCK_ELEMENTS // columns)
        blocks = [slice(start, start + step) for start in range(0, rows, step)]
        # XᵀMᵀ rather than MX: with few columns BLAS is several times faster on the long, contiguous side.
        Xt = X.mT.contiguous()  # (n, columns)
        if self.swapped:
            Yt = torch.zeros(Xt.shape[0], columns, dtype=torch.float64, device=X.device)
            for block in blocks:
                Yt += Xt[:, block] @ self.W[block].double()
        else:
            Yt = torch.cat([Xt @ self.W[block].double().mT for block in blocks], dim=1)
        if self.B is not None and self.A is not None:
            Yt += (Xt @ self.B) @ self.A if self.swapped else (Xt @ self.A.mT) @ self.B.mT
        return Yt.mT


@dataclass(frozen=True)
class Triplets:
    """M ≈ U diag(S) Vᵀ: U (rows, k), S (k,) descending, V (columns, k), float64.

    residual  max_i ‖MᵀMv_i - σ_i²v_i‖/(σ_i σ_1): how far the triplets are from converged.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    residual: float


def leading_triplets(
    M: Operator,
    k: int,
    generator: torch.Generator,
    start: Tensor | None = None,
    *,
    tolerance: float = 1e-8,
    max_steps: int = 300,
) -> Triplets:
    """The leading min(k, rows, columns) singular triplets of M.

    A search space on M's smaller side is widened by the residuals of the triplets that have not converged,
    and restarted from its leading Ritz vectors when it is full: block Lanczos on MᵀM with thick restarts (Wu
    and Simon 2000), with full orthogonalisation. Triplets with σ_i below 1e-12·σ_1 count as converged.

    start  (columns, n): directions likely to be leading right singular vectors, to begin with
    Ends after max_steps at the latest; `residual` tells.
    """
    if M.shape[0] < M.shape[1]:
        found = leading_triplets(
            M.T, k, generator, None if start is None else M @ start, tolerance=tolerance, max_steps=max_steps
        )
        return Triplets(U=found.V, S=found.S, V=found.U, residual=found.residual)
    n = M.shape[1]
    k = min(k, n)
    block = min(n, k + GUARD)
    largest = min(n, BLOCKS * block)

    random = torch.randn(n, block, generator=generator, dtype=torch.float64).to(M.device)
    first = random if start is None else torch.cat([random, start.double()], dim=1)
    V = torch.linalg.qr(first[:, :largest]).Q  # (n, m)
    T = M.T @ (M @ V)  # MᵀM V
    for step in range(max_steps + 1):
        values, Z = torch.linalg.eigh(V.mT @ T)
        values, Z = values.flip(0).clamp_min(0.0), Z.flip(1)
        sigma = values[:block].sqrt()
        R = T @ Z[:, :block] - (V @ Z[:, :block]) * values[:block]  # (n, block)
        sizes = torch.linalg.vector_norm(R, dim=0)
        null = sigma <= 1e-12 * sigma[0]
        residuals = (sizes / sigma.where(~null, 1.0)).where(~null, 0.0) / sigma[0].clamp_min(1e-300)
        room = n - V.shape[1]
        if bool((residuals[:k] <= tolerance).all()) or room == 0 or step == max_steps:
            break
        active = torch.nonzero(residuals > tolerance).flatten()
        if V.shape[1] + active.numel() > largest:
            keep = min(V.shape[1], max(block, largest // 2))
            V, T = V @ Z[:, :keep], T @ Z[:, :keep]
        active = active[: n - V.shape[1]]
        Q = R[:, active] / sizes[active]
        for _ in range(2):
            Q = torch.linalg.qr(Q - V @ (V.mT @ Q)).Q
        V = torch.cat([V, Q], dim=1)
        T = torch.cat([T, M.T @ (M @ Q)], dim=1)
    # One exact Rayleigh-Ritz step from M itself: its singular values, not roots of MᵀM's.
    V = V @ Z[:, :block]
    Q, core = torch.linalg.qr(M @ V)  # (rows, block), (block, block)
    P, S, Wh = torch.linalg.svd(core)
    return Triplets(U=(Q @ P)[:, :k], S=S[:k], V=(V @ Wh.mT)[:, :k], residual=float(residuals[:k].max()))
