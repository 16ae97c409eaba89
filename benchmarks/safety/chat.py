"""Training a causal model on chats: completion loss, whole weights or an adapter."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.fine_tune import fine_tune, pooled

MAX_TOKENS = 160


class Turn(NamedTuple):
    """What a user asks and what the model is to answer."""

    prompt: str
    answer: str


class _Row(NamedTuple):
    """A turn's tokens, and which of them are the answer."""

    ids: list[int]
    answers: list[bool]


def fit(
    model: Any, tokenizer: Any, turns: Sequence[Turn], *, steps: int, lr: float, batch: int, seed: int
) -> None:
    """Train what is trainable on the answers, `batch` turns a step."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model

    def loss(chosen: list[_Row]) -> Tensor:
        """Mean over the answers' tokens. Logits are taken there alone: the vocabulary is wide."""
        ids, mask, answers = _padded(chosen, tokenizer.pad_token_id)
        hidden = plain.model(input_ids=ids, attention_mask=mask).last_hidden_state
        wanted = answers[:, 1:]
        logits = plain.lm_head(hidden[:, :-1][wanted])  # (tokens, vocabulary)
        return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][wanted])

    rows = [_encode(tokenizer, turn) for turn in turns]
    batches = pooled(rows, lambda row: len(row.ids), batch, random.Random(seed))
    fine_tune(model, batches, loss, steps=steps, lr=lr, seed=seed)


def asked(tokenizer: Any, prompt: str) -> str:
    """The prompt in the model's own chat form, up to where its answer begins."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return text


def _encode(tokenizer: Any, turn: Turn) -> _Row:
    before = tokenizer(asked(tokenizer, turn.prompt), add_special_tokens=False)["input_ids"]
    answer = tokenizer(turn.answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    ids = (before + answer)[:MAX_TOKENS]
    return _Row(ids, [place >= len(before) for place in range(len(ids))])


def _padded(rows: Sequence[_Row], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and which tokens are answers, (n, length) each."""
    longest = max(len(row.ids) for row in rows)
    fill = [longest - len(row.ids) for row in rows]
    return (
        torch.tensor([row.ids + [pad] * more for row, more in zip(rows, fill, strict=True)]),
        torch.tensor([[1] * len(row.ids) + [0] * more for row, more in zip(rows, fill, strict=True)]),
        torch.tensor([row.answers + [False] * more for row, more in zip(rows, fill, strict=True)]),
    )
