"""Dropout whose random numbers cost little on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

_LEVELS = 1 << 16


def dropout(x: Tensor, p: float) -> Tensor:
    """x with each entry zeroed with chance p and the others divided by the chance to stay; 0 <= p < 1.

    Drawn from torch's default generator of x's device. On the CPU four entries share one 64-bit draw, a
    third of the time of torch's own dropout, so that p is rounded to a multiple of 2⁻¹⁶; the scale fits the
    rounded p.
    """
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = min(round(p * _LEVELS), _LEVELS - 1)
    n = x.numel()
    draws = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)  # all 64 bits
    stays = draws.view(torch.int16)[:n].view(x.shape) >= dropped - _LEVELS // 2
    return x * stays.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))
