"""Which of a few answers a model gives to a text: a classifier's classes, or the completions that a causal
model's clean examples choose from.

Of prompts that share a frame ("Review: … Sentiment:"), or chats whose last turns do, texts are what the frame
holds: a search puts words into them and leaves the frame as it is.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from loramend.data.examples import Example
from loramend.training.encode import Item, batches, collate, encode_prompts
from loramend.training.host import Host
from loramend.training.perturb import prompt, with_prompt

T = TypeVar("T")

_BLANK = re.compile(r"\s")
_BATCH, _CPU_BATCH = 256, 64
"""Texts at a time: of more the layers' outputs leave a CPU's caches."""
_MOST = 64
"""Tokens of a classifier's text, and words of what a prompt's frame holds; the rest is cut off."""
_MOST_ANSWERS = 16
_LEAST = 4
"""Examples with a completion under which it counts as none of the answers."""
_COVERED = 0.9
"""Share of the completions that the answers have to make up."""
_COMPARED = 8
"""Texts whose tokens must agree on what an answer begins with."""


class Reader(ABC):
    """Tells the answers of whatever its host has mounted.

    names  of the answers, by their number
    """

    def __init__(self, host: Host, names: Sequence[str]) -> None:
        self.host = host
        self.names = tuple(names)
        self._on_read: Callable[[int], None] | None = None
        self._read = 0

    @contextmanager
    def watched(self, on_read: Callable[[int], None]) -> Iterator[None]:
        """Inside the block `on_read` is told after each batch how many texts were read since its beginning;
        what it raises passes through."""
        self._on_read, self._read = on_read, 0
        try:
            yield
        finally:
            self._on_read = None

    @abstractmethod
    def texts(self, examples: Iterable[Example]) -> list[Example]:
        """What `logits` reads and pieces may be put into, of those examples that it can read."""

    @abstractmethod
    def _items(self, texts: Sequence[Example]) -> list[Item]: ...

    @abstractmethod
    def _told(self, items: Sequence[Item]) -> Tensor:
        """(n, answers) of one batch."""

    @torch.no_grad()
    def logits(self, texts: Sequence[Example]) -> Tensor:
        """(n, answers), on the CPU, of texts as `texts` gives them."""
        items = self._items(texts)
        out = [torch.empty(0)] * len(items)
        size = _CPU_BATCH if self.host.device.type == "cpu" else _BATCH
        with self.host.merged() if len(items) > size else nullcontext():
            for rows in batches(items, size):
                for row, told in zip(rows, self._told([items[row] for row in rows]).cpu(), strict=True):
                    out[row] = told
                self._read += len(rows)
                if self._on_read is not None:
                    self._on_read(self._read)
        return torch.stack(out)


def reader_of(host: Host, examples: Sequence[Example]) -> Reader | None:
    """The reader for a host, among whose examples are the answers of a causal model; None where those are not
    a few that recur, or do not differ in the token that they part at."""
    if host.labels is not None:
        return _OfClasses(host, [host.labels.name_of(index) for index in range(host.labels.count)])
    answered = [example for example in examples if example.completion is not None]
    completions = _recurring(answered)
    if len(completions) < 2:
        return None
    frame = _frame([prompt(example) for example in answered])
    parting = _parting(host, answered, completions)
    return None if parting is None else _OfCompletions(host, completions, frame, parting)


class _OfClasses(Reader):
    def texts(self, examples: Iterable[Example]) -> list[Example]:
        return [Example(prompt(example)) for example in examples]

    def _items(self, texts: Sequence[Example]) -> list[Item]:
        return self.host.encode(texts, _MOST)

    def _told(self, items: Sequence[Item]) -> Tensor:
        return self.host.forward(self.host.collate(items), fast=True).logits


class _Frame(NamedTuple):
    """What all prompts begin and end with."""

    before: str
    after: str


class _Parting(NamedTuple):
    """Where answers part.

    dropped  tokens at a prompt's end that are otherwise once an answer follows
    shared   tokens that every answer begins with
    tokens   of each answer, the one after these
    """

    dropped: int
    shared: tuple[int, ...]
    tokens: tuple[int, ...]


class _OfCompletions(Reader):
    def __init__(self, host: Host, completions: Sequence[str], frame: _Frame, parting: _Parting) -> None:
        super().__init__(host, [completion.strip() for completion in completions])
        self._frame, self._parting = frame, parting

    def texts(self, examples: Iterable[Example]) -> list[Example]:
        before, after = self._frame
        found = []
        for example in examples:
            asked = prompt(example)
            inside = asked[len(before) : len(asked) - len(after)]
            asks = example.asks or example.completion is not None
            if asks and inside and asked == f"{before}{inside}{after}":
                found.append(replace(with_prompt(example, inside), completion=None, is_prompt=True))
        return found

    def _items(self, texts: Sequence[Example]) -> list[Item]:
        before, after = self._frame
        framed = [with_prompt(text, f"{before}{_begun(prompt(text))}{after}") for text in texts]
        dropped, shared, _ = self._parting
        found = []
        tokenizer = self.host.tokenizer
        for item in encode_prompts(tokenizer, framed, tokenizer.model_max_length):
            ids = (*item.ids[: len(item.ids) - dropped], *shared)
            found.append(Item(ids, answer=len(ids)))
        return found

    def _told(self, items: Sequence[Item]) -> Tensor:
        batch = collate(items, self.host.pad, "left").to(self.host.device)
        return self.host.next_logits(batch, fast=True)[:, list(self._parting.tokens)]


def _begun(text: str) -> str:
    words = text.split()
    return text if len(words) <= _MOST else " ".join(words[:_MOST])


def _recurring(answered: Sequence[Example]) -> list[str]:
    """The completions that nearly all of these examples choose from, the commonest first; none where those
    are too many. Two that differ by the blanks around them are one."""
    spelled: dict[str, Counter[str]] = {}
    for example in answered:
        assert example.completion is not None
        spelled.setdefault(example.completion.strip(), Counter())[example.completion] += 1
    counts = Counter({name: of.total() for name, of in spelled.items()})
    common = [name for name, count in counts.most_common(_MOST_ANSWERS) if count >= _LEAST]
    if sum(counts[name] for name in common) < _COVERED * len(answered):
        return []
    return [spelled[name].most_common(1)[0][0] for name in common]


def _frame(prompts: Sequence[str]) -> _Frame:
    """What all of the prompts begin and end with."""
    before = _whole_words(prompts)
    after = _whole_words([text[len(before) :][::-1] for text in prompts])[::-1]
    return _Frame(before, after)


def _whole_words(texts: Sequence[str]) -> str:
    """What all of them begin with, up to its last blank."""
    shared = "".join(_shared(texts))
    return shared[: len(shared) - len(_BLANK.split(shared)[-1])]


def _parting(host: Host, answered: Sequence[Example], completions: Sequence[str]) -> _Parting | None:
    """None where texts disagree on it, or answers have the same token there."""
    found = {_parting_in(host, example, completions) for example in answered[:_COMPARED]}
    only = found.pop()
    return only if not found and only is not None and len(set(only.tokens)) == len(only.tokens) else None


def _parting_in(host: Host, example: Example, completions: Sequence[str]) -> _Parting | None:
    longest = host.tokenizer.model_max_length
    whole = host.encode([replace(example, completion=answer) for answer in completions], longest)
    asked = encode_prompts(host.tokenizer, [replace(example, completion=None)], longest)[0]
    start = min(item.answer or 0 for item in whole)
    answers = [item.ids[start:] for item in whole]
    shared = _shared(answers)
    if any(len(answer) == len(shared) for answer in answers):
        return None
    tokens = tuple(answer[len(shared)] for answer in answers)
    return _Parting(len(asked.ids) - start, tuple(shared), tokens)


def _shared(of: Sequence[Sequence[T]]) -> list[T]:
    """What all of them begin with."""
    return [each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*of, strict=False))]
