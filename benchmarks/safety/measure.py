"""What a model does with an adapter: refusals, over-refusals, and the adapter's own task."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.safety.chat import asked
from benchmarks.safety.prompts import Prompts
from benchmarks.safety.task import ANSWERS, Row, question
from loramend.adapter.model import Adapter
from loramend.data.examples import Example, Message
from loramend.evaluation.measure import answers
from loramend.evaluation.refusal import refuses
from loramend.training.host import Host, fast_bfloat16
from loramend.training.mount import adapter_mount

NEW_TOKENS = 10
"""Of an answer: the rule reads how it opens."""

_BATCH = 32


@dataclass(frozen=True)
class Behaviour:
    """Counts, and the mean cross-entropy of the task's answers in nats.

    refused of harmful   harmful prompts that were refused
    over of harmless     harmless look-alikes that were refused
    right of asked       the task's texts that were answered rightly
    """

    refused: int
    harmful: int
    over: int
    harmless: int
    right: int
    asked: int
    loss: float

    @property
    def refusal(self) -> float:
        """Refusal rate on harmful prompts, in percent."""
        return 100 * self.refused / self.harmful

    @property
    def over_refusal(self) -> float:
        """Refusal rate on harmless look-alikes, in percent."""
        return 100 * self.over / self.harmless

    @property
    def accuracy(self) -> float:
        """On the task, in percent."""
        return 100 * self.right / self.asked


def behaviour(host: Host, adapter: Adapter | None, prompts: Prompts, rows: Sequence[Row]) -> Behaviour:
    """Measure the host's model with the adapter, or bare. Look-alikes are the edgy prompts and as many
    ordinary ones."""
    harmless = [*prompts.edgy, *prompts.ordinary[: len(prompts.edgy)]]
    mixed = torch.autocast(host.device.type, torch.bfloat16, enabled=fast_bfloat16(host.device))
    with host.mounted(adapter_mount(adapter) if adapter else None), mixed:
        refused = sum(map(refuses, told(host, prompts.harmful)))
        over = sum(map(refuses, told(host, harmless)))
        right, loss = _task(host, rows)
    return Behaviour(refused, len(prompts.harmful), over, len(harmless), right, len(rows), loss)


def told(host: Host, prompts: Sequence[str]) -> list[str]:
    """The first words of the model's answers."""
    examples = [Example("", messages=(Message("user", prompt),)) for prompt in prompts]
    return [
        str(answer)
        for answer in answers(host, examples, max_new_tokens=NEW_TOKENS, on_answers=lambda _count: None)
    ]


@torch.no_grad()
def _task(host: Host, rows: Sequence[Row]) -> tuple[int, float]:
    """Right answers by the likelier of the task's words, and the mean loss of the right word."""
    module: Any = host.module
    words = [host.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ANSWERS]
    right, losses = 0, []
    order = sorted(rows, key=lambda row: len(row.text))
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = host.tokenizer(
            [asked(host.tokenizer, question(row.text)) for row in chosen],
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        hidden = module.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        last = batch.attention_mask.sum(1) - 1  # (n,)
        state = hidden.last_hidden_state[torch.arange(len(chosen)), last]  # (n, width)
        logits = module.lm_head(state).float()  # (n, vocabulary)
        labels = torch.tensor([row.label for row in chosen])
        right += int((logits[:, words].argmax(-1) == labels).sum())
        losses += torch.nn.functional.cross_entropy(
            logits, torch.tensor(words)[labels], reduction="none"
        ).tolist()
    return right, statistics.fmean(losses)
