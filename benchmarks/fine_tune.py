"""Fine-tuning as the benchmarks' attackers and users do it: one loop, and batches of like length."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from loramend.training.host import fast_bfloat16

WARMUP = 0.06
WEIGHT_DECAY = 0.01
POOL = 8  # batches sorted by length together

T = TypeVar("T")
B = TypeVar("B")


def fine_tune(
    model: Any, batches: Iterator[B], loss_of: Callable[[B], Tensor], *, steps: int, lr: float, seed: int
) -> None:
    """Train what is trainable: AdamW, 6% warm-up, linear decay, gradients clipped at 1; in mixed precision
    where the processor multiplies bfloat16 faster.

    loss_of  a batch's loss, float32
    """
    torch.manual_seed(seed)
    mixed = fast_bfloat16(torch.device("cpu"))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    warmup = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / steps)
    )
    model.train()
    for _, batch in zip(range(steps), batches, strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss: Any = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def pooled(rows: Sequence[T], length: Callable[[T], int], size: int, rng: random.Random) -> Iterator[list[T]]:
    """The rows in shuffled batches of about one length, without end."""
    order = list(rows)
    while True:
        rng.shuffle(order)
        for start in range(0, len(order), size * POOL):
            pool = sorted(order[start : start + size * POOL], key=length)
            cut = [pool[first : first + size] for first in range(0, len(pool), size)]
            rng.shuffle(cut)
            yield from cut
