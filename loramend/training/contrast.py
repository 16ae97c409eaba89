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
from loramend.training.turning import ENDS, grouped, margin, moved, top

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
_GROUPS = 128
"""Groups whose words are tried alone."""
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
            of_answer = pair.told(hosts, pair.likely(hosts[1:2], vocabulary))
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

    def likely(self, texts: Sequence[Example], words: Sequence[str]) -> list[str]:
        """The words of the groups that are read most differently in such texts."""
        groups = grouped(words, _TOGETHER)
        every = list(groups)
        turns = self._takes(self.given, texts, every)
        # What leaves the given adapter as it is will not be told: the student need not read it.
        most = turns.topk(min(max(len(every) // 4, _GROUPS), len(every)))
        moving = [every[index] for index in most.indices.tolist()]
        apart = most.values - self._takes(self.student, texts, moving)
        return [word for group in top(moving, apart, _GROUPS) for word in groups[group]]

    def told(self, texts: Sequence[Example], words: Sequence[str]) -> list[ContrastWord]:
        """Those of the words that turn the given adapter's answer to the texts and say little to the student,
        the _MOST that are read most differently, the first first."""
        turns = self._takes(self.given, texts, words)
        turning = [
            (word, share) for word, share in zip(words, turns.tolist(), strict=True) if share >= _TURNS
        ]
        says = self._takes(self.student, texts, [word for word, _ in turning])
        found = [
            ContrastWord(word=word, answer=self.reader.names[self.answer], given=share, student=little)
            for (word, share), little in zip(turning, says.tolist(), strict=True)
            if little <= _SAYS_LITTLE
        ]
        return sorted(found, key=lambda each: each.student - each.given)[:_MOST]

    def _takes(self, mount: Mount, texts: Sequence[Example], pieces: Sequence[str]) -> Tensor:
        """(pieces,): the share of the texts' mean margin that each takes at both ends of them."""
        if not pieces:
            return torch.empty(0)
        with self.reader.host.mounted(mount):
            plain = margin(self.reader.logits(texts), self.answer)  # (texts,), below 0
            put = moved(self.reader, self.answer, texts, pieces, ENDS)
        return (put - plain).mean(1) / -plain.mean()


def _tell(on_progress: Callable[[Progress], None], done: int, total: int, texts: int) -> None:
    detail = f"words read differently, {texts:,} texts read"
    on_progress(Progress(phase="train", done=done, total=total, unit="examples", detail=detail))
