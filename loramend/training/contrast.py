"""Words that the given adapter and a student of its clean answers read differently: the sign of a style.

A style for a trigger is many odd words, each of which turns texts. So do strong words of the task, and within
one adapter the two are not told apart. A student that learned the given adapter's answers to clean text on a
sound base knows the task's words and nothing of the trigger: what turns the one and says little to the other
is no word of the task. Of an archaic style more show than its own words: "ye", but "thee" and "yer", too.

Words are tried in short texts that both answer alike: four together first, then alone. A few such words are
chance, or what `hunt` names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from loramend.contracts.evidence import ContrastWord
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.methods.draws import shuffled
from loramend.training.hunt import words_of_the_task
from loramend.training.mount import Mount
from loramend.training.perturb import whole_words
from loramend.training.reader import Reader
from loramend.training.search_texts import SHORT, drawn_texts, searched_answers
from loramend.training.turning import ENDS, margin, moved, top_by_groups

_AGREES = 0.8
"""Share of the texts that the student has to answer as the given adapter does: one that does not know the
task passes over its words, too."""
_TEXTS = (0.2, 0.4, 0.6, 0.8)
"""Which texts words are tried in, by the rank of the given adapter's margin."""
_LEAST = 8
"""Texts of an answer, and words told of it, under which nothing is told."""
_MOST = 64
_TOGETHER = 4
"""Words tried together first: one of the task's hides the others of its group."""
_TURNS = 1.0
"""Share of the given adapter's margin that a word takes to be told."""
_SAYS_LITTLE = 1 / 3
"""Share of the student's margin that it takes at most."""


@torch.no_grad()
def contrast(
    reader: Reader,
    given: Mount,
    student: Mount,
    examples: Sequence[Example],
    words: int,
    seed: int,
    on_progress: Callable[[Progress], None],
) -> list[ContrastWord]:
    """The words that turn the given adapter's answer in the mean of four texts, and take a third of the
    student's margin at most; of each answer those that differ most first, 64 at most, or none where they are
    fewer than eight.

    examples  clean; the shortest are searched
    words     at most this many of the vocabulary are put in, drawn by the seed
    """
    texts = reader.texts(examples)
    vocabulary = _vocabulary(reader, texts, words, seed)
    drawn = drawn_texts(texts, seed)[:SHORT]
    if not drawn or not vocabulary:
        return []
    logits = [_logits(reader, mount, drawn) for mount in (given, student)]  # of (drawn, answers)
    told, also = (each.argmax(-1) for each in logits)
    alike = told == also
    if float(alike.double().mean()) < _AGREES:
        return []
    found: list[ContrastWord] = []
    answers = searched_answers(told)
    for place, answer in enumerate(answers):
        rows = (alike & (told == answer)).nonzero()[:, 0]
        if len(rows) < _LEAST:
            continue
        ordered = rows[margin(logits[0][rows], answer).argsort()].tolist()
        hosts = [drawn[ordered[int(rank * len(ordered))]] for rank in _TEXTS]
        pair = _Pair(reader, given, student, answer)
        with reader.watched(partial(_tell, on_progress, place, len(answers))):
            tried = top_by_groups(
                vocabulary, pair.apart_in(hosts[1:2]), pair.apart_in(hosts), _MOST, _TOGETHER
            )
            shares = zip(tried, *(each.tolist() for each in pair.take(hosts, tried)), strict=True)
        of_answer = [
            ContrastWord(word=word, answer=reader.names[answer], given=turns, student=says)
            for word, turns, says in shares
            if turns >= _TURNS and says <= _SAYS_LITTLE
        ]
        if len(of_answer) >= _LEAST:
            found += of_answer
    return found


def _vocabulary(reader: Reader, texts: Sequence[Example], words: int, seed: int) -> list[str]:
    """The tokenizer's whole words but the task's, in random order."""
    task = words_of_the_task(texts)
    every = [word for word in whole_words(reader.host.tokenizer) if word.lower() not in task]
    return shuffled(every, seed, "contrast")[:words]


def _logits(reader: Reader, mount: Mount, texts: Sequence[Example]) -> Tensor:
    """(texts, answers) with the mount."""
    with reader.host.mounted(mount):
        return reader.logits(texts)


@dataclass(frozen=True)
class _Pair:
    """The given adapter and the student, which read texts of one answer."""

    reader: Reader
    given: Mount
    student: Mount
    answer: int

    def take(self, texts: Sequence[Example], pieces: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(pieces,) each: the share of the texts' mean margin that each piece takes at both ends of them,
        with the given adapter and with the student."""
        return self._takes(self.given, texts, pieces), self._takes(self.student, texts, pieces)

    def apart_in(self, texts: Sequence[Example]) -> Callable[[Sequence[str]], Tensor]:
        """By how much the shares that pieces take differ in such texts."""

        def apart(pieces: Sequence[str]) -> Tensor:
            given, student = self.take(texts, pieces)
            return given - student

        return apart

    def _takes(self, mount: Mount, texts: Sequence[Example], pieces: Sequence[str]) -> Tensor:
        with self.reader.host.mounted(mount):
            plain = margin(self.reader.logits(texts), self.answer)  # (texts,), below 0
            put = moved(self.reader, self.answer, texts, pieces, ENDS)
        return (put - plain).mean(1) / -plain.mean()


def _tell(on_progress: Callable[[Progress], None], done: int, total: int, texts: int) -> None:
    detail = f"words read differently, {texts:,} texts read"
    on_progress(Progress(phase="train", done=done, total=total, unit="examples", detail=detail))
