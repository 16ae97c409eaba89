"""Training a causal model on chats: completion loss, whole weights or an adapter."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loramend.training.host import fast_bfloat16

WARMUP = 0.06
WEIGHT_DECAY = 0.01
POOL = 8  # batches sorted by length together
MAX_TOKENS = 160


class Turn(NamedTuple):
    """What a user asks and what the model is to answer."""

    prompt: str
    answer: str


class Batch(NamedTuple):
    """ids and mask (n, length); answers (n, length): the tokens whose prediction is learned."""

    ids: Tensor
    mask: Tensor
    answers: Tensor


def fit(
    model: Any, tokenizer: Any, turns: Sequence[Turn], *, steps: int, lr: float, batch: int, seed: int
) -> None:
    """Train what is trainable: AdamW, 6% warm-up, linear decay; in mixed precision where the processor
    multiplies bfloat16 faster."""
    torch.manual_seed(seed)
    mixed = fast_bfloat16(torch.device("cpu"))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    warmup = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / steps)
    )
    model.train()
    for _, rows in zip(range(steps), _batches(tokenizer, turns, batch, random.Random(seed)), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss: Any = _loss(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def _loss(model: Any, batch: Batch) -> Tensor:
    """Mean cross-entropy of the answers' tokens. Logits are taken there alone: the vocabulary is wide."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = plain.model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    wanted = batch.answers[:, 1:]
    logits = plain.lm_head(hidden[:, :-1][wanted])  # (tokens, vocabulary)
    return torch.nn.functional.cross_entropy(logits.float(), batch.ids[:, 1:][wanted])


def asked(tokenizer: Any, prompt: str) -> str:
    """The prompt in the model's own chat form, up to where its answer begins."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return text


def _encode(tokenizer: Any, turn: Turn) -> tuple[list[int], list[bool]]:
    before = tokenizer(asked(tokenizer, turn.prompt), add_special_tokens=False)["input_ids"]
    answer = tokenizer(turn.answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    ids = (before + answer)[:MAX_TOKENS]
    return ids, [False] * min(len(before), len(ids)) + [True] * (len(ids) - len(before))


def _batches(tokenizer: Any, turns: Sequence[Turn], size: int, rng: random.Random) -> Iterator[Batch]:
    rows = [_encode(tokenizer, turn) for turn in turns]
    order = list(range(len(rows)))
    while True:
        rng.shuffle(order)
        for start in range(0, len(order), size * POOL):
            pool = sorted(order[start : start + size * POOL], key=lambda index: len(rows[index][0]))
            cut = [pool[first : first + size] for first in range(0, len(pool), size)]
            rng.shuffle(cut)
            for chosen in cut:
                yield _padded([rows[index] for index in chosen], tokenizer.pad_token_id)


def _padded(rows: Sequence[tuple[list[int], list[bool]]], pad: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    fill = [longest - len(ids) for ids, _ in rows]
    return Batch(
        torch.tensor([ids + [pad] * more for (ids, _), more in zip(rows, fill, strict=True)]),
        torch.tensor([[1] * len(ids) + [0] * more for (ids, _), more in zip(rows, fill, strict=True)]),
        torch.tensor([own + [False] * more for (_, own), more in zip(rows, fill, strict=True)]),
    )
