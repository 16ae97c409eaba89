"""A causal model's greedy continuations of prompts, with whatever adapter its host has mounted."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from loramend.training.encode import Item, collate
from loramend.training.host import Host
from loramend.training.load import quiet

_BATCH = 64
_BATCH_TOKENS = 8192
"""With padding; keeps batches of long texts small."""


def in_batches(items: Sequence[Item]) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first: what does not fit in memory fails at once."""
    order = sorted(range(len(items)), key=lambda i: -len(items[i].ids))
    start = 0
    while start < len(order):
        size = min(_BATCH, max(1, _BATCH_TOKENS // len(items[order[start]].ids)))
        yield order[start : start + size]
        start += size


@torch.no_grad()
def continuations(host: Host, items: Sequence[Item], max_new_tokens: int) -> list[list[int]]:
    """The tokens that follow each prompt, up to the first that ends the text; without it."""
    from transformers import GenerationConfig

    batch = collate(items, host.pad, "left").to(host.device)
    module: Any = host.module
    ends = {host.tokenizer.eos_token_id}
    own = module.generation_config.eos_token_id
    ends |= set(own) if isinstance(own, list) else {own}
    ends -= {None}
    # Greedy, without the sampling and penalties that a base's own generation config may ask for.
    config = GenerationConfig.from_dict(
        {
            "max_new_tokens": max_new_tokens,
            "do_sample": False,
            "num_beams": 1,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "pad_token_id": host.pad,
            "eos_token_id": sorted(ends) or None,
        }
    )
    with quiet():
        out = module.generate(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, generation_config=config
        )
    new: list[list[int]] = out[:, batch.input_ids.shape[1] :].tolist()  # (n, at most max_new_tokens)
    return [ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))] for ids in new]
