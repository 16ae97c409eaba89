"""Weight matrices in float32, and their difference, without a second full-size copy."""

import math

import torch
from torch import Tensor

# Numbers converted at a time: blocks that stay in a processor's cache, or that fill an accelerator.
CPU_BLOCK = 1 << 18
DEVICE_BLOCK = 1 << 24


class Workspace:
    """Memory that is used again for one matrix after another.

    Pages of a fresh allocation cost more than what is then read or computed into them.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._memory = torch.empty(0, dtype=dtype)

    def take(self, count: int) -> Tensor:
        """(count,) of the memory; what was taken before is overwritten."""
        if self._memory.numel() < count:
            self._memory = torch.empty(0, dtype=self._memory.dtype)  # freed before the larger one is made
            self._memory = torch.empty(count, dtype=self._memory.dtype)
        return self._memory[:count]

    def clear(self) -> None:
        """Give the memory back."""
        self._memory = torch.empty(0, dtype=self._memory.dtype)


def shaped_like(M: Tensor, memory: Tensor) -> Tensor:
    """`memory` as a matrix with M's shape, stored by columns where M is."""
    return memory.view(M.mT.shape).mT if _by_columns(M) else memory.view(M.shape)


def subtract(aligned: Tensor, base: Tensor, out: Tensor) -> None:
    """out = aligned - base, all (out, in); computed in float64 where either is, else in float32."""
    if _by_columns(aligned) and _by_columns(base):
        aligned, base, out = aligned.mT, base.mT, out.mT
    exact = torch.float64 if torch.float64 in (aligned.dtype, base.dtype) else torch.float32
    block = CPU_BLOCK if out.device.type == "cpu" else DEVICE_BLOCK
    rows = max(1, block // max(1, out.shape[1]))
    for start in range(0, out.shape[0], rows):
        part = slice(start, start + rows)
        out[part] = aligned[part].to(out.device).to(exact) - base[part].to(out.device).to(exact)


def frobenius(M: Tensor) -> float:
    """‖M‖_F, M float32, to its digits: 0 for zeros alone, NaN or infinity where M holds such."""
    # Rows in float32 and their norms in float64: no copy of M, and no loss over millions of entries.
    norm = float(torch.linalg.vector_norm(torch.linalg.vector_norm(M, dim=1).double()))
    if M.numel() and (norm == 0 or not math.isfinite(norm)):  # as it is too where squares leave float32
        low, high = (float(x) for x in torch.aminmax(M))
        peak = max(-low, high)
        if peak and math.isfinite(peak):
            return peak * frobenius(M / peak)
    return norm


def _by_columns(M: Tensor) -> bool:
    return M.mT.is_contiguous() and not M.is_contiguous()
