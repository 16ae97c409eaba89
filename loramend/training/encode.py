"""From examples to padded batches of tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from loramend.adapter.quote import quote
from loramend.contracts.errors import DataError
from loramend.data.examples import Dataset, Example, Message
from loramend.training.load import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

IGNORED = -100
"""The label of positions that take no part in a causal model's loss."""

_BUCKET = 16
_SHOWN = 10


@dataclass(frozen=True)
class Item:
    """One example as tokens.

    ids     with the special tokens the model wants
    label   class of a classifier's example; None where unknown
    answer  of a causal model: where the answer begins; 0 for plain text, all of which is learned, len(ids)
            for a prompt without its answer; None of a classifier
    """

    ids: tuple[int, ...]
    label: int | None = None
    answer: int | None = None


@dataclass(frozen=True)
class Encoded:
    """A batch. input_ids, attention_mask (n, length) int64, 0 in the mask is padding. labels: (n,) classes,
    IGNORED where unknown, or (n, length) tokens with IGNORED outside the answers; not yet shifted."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: str | torch.device) -> "Encoded":
        """The same on another device."""
        return Encoded(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Labels:
    """A classifier's classes: how many, and their numbers by name."""

    count: int
    ids: Mapping[str, int]

    @classmethod
    def of(cls, config: "PreTrainedConfig") -> "Labels":
        """Those a model's config tells."""
        named = config.id2label or {}
        return cls(int(config.num_labels or len(named)), {name: int(i) for i, name in named.items()})

    def name_of(self, index: int) -> str:
        """The class's name; its number where it has none."""
        return next((name for name, number in self.ids.items() if number == index), str(index))

    def id_of(self, label: int | str, where: str) -> int:
        """The class that a label of a data file means: a name the config has, or a number.

        Raises DataError `data_invalid`, saying which labels there are.
        """
        if isinstance(label, str) and label in self.ids:
            return self.ids[label]
        number = label if isinstance(label, int) else int(label) if label.isdecimal() else -1
        if 0 <= number < self.count:
            return number
        names = ", ".join(quote(name) for name in list(self.ids)[:_SHOWN])
        raise DataError(
            "data_invalid",
            f"The label {quote(str(label))} is none of the model's: it has 0 to {self.count - 1}"
            + (f", called {names}." if names else "."),
            where=where,
        )


def check_examples(dataset: Dataset, task: Task, labels: Labels | None) -> None:
    """Check that a file's examples are of the kind the task learns from, and that the model has their labels.

    Raises DataError `data_invalid` naming the first line that is wrong.
    """
    for number, example in enumerate(dataset.examples, start=1):
        _check(example, task, labels, f"{dataset.name}:{number}")


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    task: Task,
    max_length: int,
    labels: Labels | None = None,
) -> list[Item]:
    """Every example as tokens, at most `max_length` of them and no more than the model takes.

    A classifier's text loses its end. A causal model's prompt loses its beginning (its first special token
    stays), and only where that is not enough the answer its end; plain text is learned whole, a completion up
    to and with the end token, a chat's last answer as the tokenizer's chat template writes it.

    Raises DataError `data_invalid` for an example the task cannot use, an unknown label, or a chat where the
    tokenizer has no chat template.
    """
    for number, example in enumerate(examples, start=1):
        _check(example, task, labels, f"example {number}")
    longest = min(max_length, tokenizer.model_max_length)
    if task == "classification":
        return _classified(tokenizer, examples, longest, labels)
    return [_causal(tokenizer, example, longest) for example in examples]


def encode_prompts(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], max_length: int
) -> list[Item]:
    """A causal model's prompts alone, as generation starts from them; answer = len(ids). Raises as `encode`
    does."""
    longest = min(max_length, tokenizer.model_max_length)
    out = []
    for example in examples:
        ids = _prompt(tokenizer, example)
        ids = _cut_front(ids, longest, tokenizer)
        out.append(Item(tuple(ids), answer=len(ids)))
    return out


def collate(items: Sequence[Item], pad: int, side: Literal["right", "left"] = "right") -> Encoded:
    """One batch of items of one task, padded to its longest text with the token `pad`."""
    length = max(len(item.ids) for item in items)
    input_ids = torch.full((len(items), length), pad)
    mask = torch.zeros(len(items), length, dtype=torch.int64)
    answers = torch.full((len(items), length), IGNORED)
    for row, item in enumerate(items):
        start = 0 if side == "right" else length - len(item.ids)
        end = start + len(item.ids)
        ids = torch.tensor(item.ids)
        input_ids[row, start:end] = ids
        mask[row, start:end] = 1
        if item.answer is not None:
            answers[row, start + item.answer : end] = ids[item.answer :]
    if items[0].answer is not None:
        return Encoded(input_ids, mask, answers)
    classes = [IGNORED if item.label is None else item.label for item in items]
    return Encoded(input_ids, mask, torch.tensor(classes))


def batches(
    items: Sequence[Item], size: int, generator: torch.Generator | None = None
) -> Iterator[list[int]]:
    """Indices of the items in batches of up to `size` of like length, each item once.

    Without a generator longest first; with one in random order: lengths are sorted only within
    stretches of a few batches, and the batches come shuffled.
    """
    if generator is None:
        ordered = sorted(range(len(items)), key=lambda i: -len(items[i].ids))
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]
        return
    shuffled = torch.randperm(len(items), generator=generator).tolist()
    found: list[list[int]] = []
    for begin in range(0, len(shuffled), size * _BUCKET):
        stretch = sorted(shuffled[begin : begin + size * _BUCKET], key=lambda i: -len(items[i].ids))
        found.extend(stretch[start : start + size] for start in range(0, len(stretch), size))
    for index in torch.randperm(len(found), generator=generator).tolist():
        yield found[index]


def _check(example: Example, task: Task, labels: Labels | None, where: str) -> None:
    if task == "classification":
        if example.messages or example.completion is not None:
            raise DataError(
                "data_invalid",
                "The adapter classifies texts, so it learns from `text` and `label`, not from prompts.",
                where=where,
            )
        if example.label is not None and labels is not None:
            labels.id_of(example.label, where)
    elif example.label is not None:
        raise DataError(
            "data_invalid",
            "The adapter is a causal language model's, which has no labels: give `prompt` and `completion`, "
            "or `messages`.",
            where=where,
        )


def _classified(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], longest: int, labels: Labels | None
) -> list[Item]:
    if not examples:
        return []
    texts = [example.text for example in examples]
    rows: list[list[int]] = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    items = []
    for number, (example, ids) in enumerate(zip(examples, rows, strict=True), start=1):
        where = f"example {number}"
        label = None if example.label is None or labels is None else labels.id_of(example.label, where)
        items.append(Item(tuple(ids), label))
    return items


def _causal(tokenizer: "PreTrainedTokenizerBase", example: Example, longest: int) -> Item:
    if example.completion is None and not example.asks:
        ids = _tokens(tokenizer, example.text)[:longest]
        return Item(tuple(ids), answer=0)
    prompt = _prompt(tokenizer, example)
    if example.completion is None:
        ids = _cut_front(prompt, longest, tokenizer)
        return Item(tuple(ids), answer=len(ids))
    if example.messages:
        turns = (*example.messages, Message("assistant", example.completion))
        whole = _tokens(tokenizer, _chat(tokenizer, turns, ask=False), special=False)
    else:
        whole = _tokens(tokenizer, example.text + example.completion)
        end = tokenizer.eos_token_id
        if isinstance(end, int) and whole[-1:] != [end]:
            whole.append(end)
    # A token that holds both the prompt's end and the answer's beginning belongs to the answer.
    common = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    common = min(common, len(whole))
    answer = whole[common:][: longest - 1]
    kept = _cut_front(whole[:common], longest - len(answer), tokenizer)
    return Item((*kept, *answer), answer=len(kept))


def _prompt(tokenizer: "PreTrainedTokenizerBase", example: Example) -> list[int]:
    if example.messages:
        return _tokens(tokenizer, _chat(tokenizer, example.messages, ask=True), special=False)
    ids = _tokens(tokenizer, example.text)
    # Some tokenizers end every text; an answer follows here.
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _cut_front(ids: list[int], longest: int, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    if len(ids) <= longest:
        return ids
    front = ids[:1] if ids[0] == tokenizer.bos_token_id and longest > 1 else []
    return front + ids[len(ids) - longest + len(front) :]


def _tokens(tokenizer: "PreTrainedTokenizerBase", text: str, *, special: bool = True) -> list[int]:
    # verbose: no warning for texts over the model's length, which are cut afterwards.
    ids: list[int] = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    if not ids:
        raise DataError(
            "data_invalid", "The text has no tokens: leave empty lines out.", where=quote(text[:_SHOWN])
        )
    return ids


def _chat(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, ask: bool) -> str:
    """The turns as the tokenizer's chat template writes them, up to where the assistant answers if `ask`."""
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise DataError(
            "data_invalid",
            "The data holds chat `messages`, and the base model's tokenizer has no chat template: give "
            "`prompt` and `completion`, or a base with a template.",
            where="messages",
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
    except TemplateError as error:
        raise DataError(
            "data_invalid",
            f"The base model's chat template refuses these messages: {quote(str(error))}.",
            where=quote(messages[0].content[:40]),
        ) from None
    assert isinstance(text, str)
    return text
