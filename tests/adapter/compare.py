"""Updates side by side with peft's deltas, and updates changed as a method would."""

import torch
from torch import Tensor

from loramend.adapter.model import Adapter, Update

# One rounding of each entry to the file's dtype, in A and in B.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def delta(update: Update) -> Tensor:
    return update.scale * update.B @ update.A


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def resized(adapter: Adapter) -> Adapter:
    """Every update with random factors of another rank and scale."""
    torch.manual_seed(5)
    changed = {}
    for index, (name, update) in enumerate(adapter.updates.items()):
        rank = 1 + (3 * index) % 7
        out, width = update.shape
        dtype = update.A.dtype
        changed[name] = update.with_factors(
            torch.randn(out, rank, dtype=dtype), torch.randn(rank, width, dtype=dtype), 0.3 + index
        )
    return adapter.with_updates(changed)
