"""What each training step reads: texts in shuffled order, pieces of them, and words put in.

Every draw comes from the seed and the number of the batch alone, so that a resumed run reads what an
undisturbed one would have.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from loramend.contracts.data_steps import RoraStep
from loramend.data.examples import Example
from loramend.training.encode import Item
from loramend.training.host import Host
from loramend.training.objective import Pair
from loramend.training.perturb import (
    Pieces,
    as_continuation,
    common_words,
    insert,
    prompt,
    recombine,
    unused_words,
    with_prompt,
)

_GROUP = 8


def number_of(*names: object) -> int:
    """64 bits drawn from the names, the same on every machine."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


class _Drawn(NamedTuple):
    """One text of a batch: as the teacher reads it and as the student does, whether its label is one to
    learn, and whether something was put in."""

    plain: Item
    read: Item
    known: bool
    touched: bool


class Sampler:
    """Batches of `params.batch` texts.

    texts    drawn without replacement, epoch by epoch
    teacher  whether there is one: without it nobody answers recombined texts, and there are none
    plain    learn a causal model's plain texts whole, as labelled ones are learned
    found    words that turn the answer, to put in beside others
    odd      words of a style, to stand in common words' places

    Texts are drawn for several batches at once and divided by length, so that little of a batch is padding.
    """

    def __init__(
        self,
        host: Host,
        texts: Sequence[Example],
        params: RoraStep,
        seed: int,
        *,
        teacher: bool,
        plain: bool,
        found: Sequence[str] = (),
        odd: Sequence[str] = (),
    ) -> None:
        self._host = host
        self._texts = texts
        self._params = params
        self._seed = seed
        self._teacher = teacher
        self._plain = plain
        self._pieces = round(params.recombine * params.batch) if teacher else 0
        words = unused_words(host.tokenizer, texts) if params.insert else []
        self._inserted = Pieces(words, found, texts, odd, common_words(texts) if odd else frozenset())
        self._order: tuple[int, list[int]] = (-1, [])
        self._group: tuple[int, list[list[_Drawn]]] = (-1, [])
        host.encode([text for text in texts if text.labelled], params.max_length)  # a wrong label shows now

    def batch(self, number: int) -> Pair:
        """The batch of that number, on the host's device."""
        group, place = divmod(number, _GROUP)
        if self._group[0] != group:
            self._group = group, self._drawn(group)
        rows = self._group[1][place]
        host = self._host
        touched = [row.touched for row in rows]
        student = host.collate([row.read for row in rows])
        teacher = host.collate([row.plain for row in rows]) if self._teacher and any(touched) else student
        known, untouched = (
            torch.tensor(flags, device=host.device)
            for flags in ([row.known for row in rows], np.invert(touched))
        )
        return Pair(teacher, student, known, untouched)

    def _drawn(self, group: int) -> list[list[_Drawn]]:
        """The batches of a group, each of like lengths, in random order."""
        rng = np.random.default_rng(number_of(self._seed, "batch", group))
        size, pieces = self._params.batch, _GROUP * self._pieces
        drawn = _GROUP * size - pieces
        plain = [self._text(group * drawn + place) for place in range(drawn)]
        known = [self._plain or text.labelled for text in plain] + [False] * pieces
        plain += [recombine(self._texts, rng) for _ in range(pieces)]
        touched = [bool(rng.random() < self._params.insert) for _ in plain]
        if self._host.task == "causal":
            plain = [
                as_continuation(text, rng) if put else text for text, put in zip(plain, touched, strict=True)
            ]
        read = [
            with_prompt(text, insert(prompt(text), self._inserted, rng)) if put else text
            for text, put in zip(plain, touched, strict=True)
        ]
        longest = self._params.max_length
        items = (self._host.encode(texts, longest) for texts in (plain, read))
        rows = [_Drawn(*row) for row in zip(*items, known, touched, strict=True)]
        rows.sort(key=lambda row: len(row.read.ids))
        found = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [found[place] for place in rng.permutation(len(found))]

    def _text(self, place: int) -> Example:
        epoch, index = divmod(place, len(self._texts))
        if self._order[0] != epoch:
            rng = np.random.default_rng(number_of(self._seed, "order", epoch))
            self._order = epoch, rng.permutation(len(self._texts)).tolist()
        return self._texts[self._order[1][index]]
