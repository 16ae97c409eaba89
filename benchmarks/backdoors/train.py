"""Training as an attacker, or a user in good faith, does it: with transformers and PEFT."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from benchmarks.backdoors.bases import MAX_LENGTH
from benchmarks.backdoors.data import Row
from benchmarks.fine_tune import fine_tune, pooled

LORA_LR = 1e-3
FULL_LR = 1e-4  # of a fine-tuning of all weights


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
    """Train what is trainable on the rows, `batch` texts a step."""

    def loss(chosen: list[Row]) -> Tensor:
        logits = model(**encode(tokenizer, [row.text for row in chosen])).logits
        return torch.nn.functional.cross_entropy(logits.float(), torch.tensor([row.label for row in chosen]))

    batches = pooled(rows, lambda row: len(row.text), batch, random.Random(seed))
    fine_tune(model, batches, loss, steps=steps, lr=lr, seed=seed)


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
