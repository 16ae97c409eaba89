"""A model's answers to many texts: batched, greedy, with whatever adapter its host has mounted."""

from collections.abc import Callable, Sequence
from typing import cast

import torch

from loramend.data.examples import Example
from loramend.training.encode import Item, encode_prompts
from loramend.training.generate import continuations, in_batches
from loramend.training.host import Host

Answer = int | str
"""A classifier's class, or a causal model's text."""

MAX_TOKENS = 2048
"""Of a text; the rest is cut off as `training.encode` says."""


def answers(
    host: Host, examples: Sequence[Example], *, max_new_tokens: int, on_answers: Callable[[int], None]
) -> list[Answer]:
    """The answer to each example, in their order.

    max_new_tokens  where a causal model's answer is cut off, unless it ends before
    on_answers      called after each batch with the number of its examples; may raise to stop
    Raises DataError as `training.encode` does.
    """
    found: list[Answer] = [""] * len(examples)
    items = encoded(host, examples, max_new_tokens)
    answer = _classes if host.task == "classification" else _texts
    for batch in in_batches(items):
        with torch.no_grad():
            for index, text in zip(
                batch, answer(host, [items[i] for i in batch], max_new_tokens), strict=True
            ):
                found[index] = text
        on_answers(len(batch))
    return found


def cut_off(host: Host, examples: Sequence[Example], max_new_tokens: int) -> int:
    """How many completions have more tokens than a causal model's answer may."""
    texts = [(example.completion or "").strip() for example in examples]
    rows = host.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return sum(len(ids) > max_new_tokens for ids in rows)


def encoded(host: Host, examples: Sequence[Example], max_new_tokens: int) -> list[Item]:
    """The examples as the model reads them, a causal model's with room for its answer. Raises DataError as
    `training.encode` does."""
    if host.task == "classification":
        return host.encode(examples, MAX_TOKENS)
    room = max(host.tokenizer.model_max_length - max_new_tokens, 1)
    return encode_prompts(host.tokenizer, examples, min(MAX_TOKENS, room))


def _classes(host: Host, items: Sequence[Item], _max_new_tokens: int) -> Sequence[Answer]:
    logits = host.forward(host.collate(items)).logits  # (n, classes)
    return cast("list[int]", logits.argmax(-1).tolist())


def _texts(host: Host, items: Sequence[Item], max_new_tokens: int) -> Sequence[Answer]:
    new = continuations(host, items, max_new_tokens)
    return host.tokenizer.batch_decode(new, skip_special_tokens=True)
