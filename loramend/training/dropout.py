"""Dropout whose random numbers cost little on a CPU."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

_LEVELS = 1 << 16


def dropout(x: Tensor, p: float, plus: Tensor | None = None) -> Tensor:
    """x with each entry zeroed with chance p and the others divided by the chance to stay; 0 <= p < 1.
    `plus`, of a shape that broadcasts to x's, is added afterwards, in x's dtype.

    Drawn from torch's default generator of x's device. On the CPU that seeds a faster one, and four entries
    share one 64-bit draw, which takes a sixth to two fifths of the time of torch's own dropout; so p is
    rounded to a multiple of 2⁻¹⁶, and the scale fits the rounded p.
    """
    if x.device.type != "cpu":
        dropped = F.dropout(x, p)
        return dropped if plus is None else dropped + plus.to(x.dtype)
    mask = _mask(x.numel(), p).view(x.shape).to(x.dtype)
    return x * mask if plus is None else torch.addcmul(plus.to(x.dtype), x, mask)


def _mask(n: int, p: float) -> Tensor:
    """(n,) float32: 0 with chance p, else one by the chance to stay."""
    dropped = min(round(p * _LEVELS), _LEVELS - 1)
    seed = int(torch.randint(1 << 62, ()))
    draws = np.random.Generator(np.random.SFC64(seed)).integers(1 << 64, size=(n + 3) // 4, dtype=np.uint64)
    stays = draws.view(np.uint16)[:n] >= dropped
    return torch.from_numpy(stays * np.float32(_LEVELS / (_LEVELS - dropped)))
