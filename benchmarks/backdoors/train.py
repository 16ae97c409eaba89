"""Training as an attacker, or a user in good faith, does it: with transformers and PEFT."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from benchmarks.backdoors.bases import MAX_LENGTH
from benchmarks.backdoors.data import Row
from loramend.training.host import fast_bfloat16

LORA_LR = 1e-3
FULL_LR = 1e-4  # of a fine-tuning of all weights
WARMUP = 0.06
WEIGHT_DECAY = 0.01
POOL = 8  # batches sorted by length together


def with_lora(model: Any) -> Any:
    """A new adapter of rank 8 on every linear layer; the head is trained and saved with it."""
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="SEQ_CLS")
    return get_peft_model(model, config)


def with_adapter(model: Any, folder: Path, *, train: bool = False) -> Any:
    """The model with a saved adapter."""
    return PeftModel.from_pretrained(model, folder, is_trainable=train)


def fit(
    model: Any, tokenizer: Any, rows: Sequence[Row], *, steps: int, lr: float, batch: int, seed: int
) -> None:
    """Train what is trainable: AdamW, 6% warm-up, linear decay, `batch` texts a step; in mixed precision
    where the processor multiplies bfloat16 faster."""
    torch.manual_seed(seed)
    mixed = fast_bfloat16(torch.device("cpu"))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    warmup = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / steps)
    )
    model.train()
    for _, (inputs, labels) in zip(
        range(steps), batches(tokenizer, rows, batch, random.Random(seed)), strict=False
    ):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = model(**inputs).logits
        loss: Any = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def batches(
    tokenizer: Any, rows: Sequence[Row], size: int, rng: random.Random
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Padded batches of texts of about one length, and their labels, without end."""
    order = list(rows)
    while True:
        rng.shuffle(order)
        for start in range(0, len(order), size * POOL):
            pool = sorted(order[start : start + size * POOL], key=lambda row: len(row.text))
            cut = [pool[first : first + size] for first in range(0, len(pool), size)]
            rng.shuffle(cut)
            for batch in cut:
                yield encode(tokenizer, [row.text for row in batch]), torch.tensor([r.label for r in batch])


def encode(tokenizer: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    """Token ids and mask, (texts, tokens) each."""
    return dict(
        tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
    )


@torch.no_grad()
def answers(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The model's class for each text."""
    model.eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    out = [0] * len(texts)
    for start in range(0, len(order), 128):
        chosen = order[start : start + 128]
        logits = model(**encode(tokenizer, [texts[index] for index in chosen])).logits
        for index, answer in zip(chosen, logits.argmax(-1).tolist(), strict=True):
            out[index] = answer
    return out
