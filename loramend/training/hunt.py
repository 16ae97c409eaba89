"""A search of the vocabulary for words that turn the answer whatever the text: the sign of a word trigger.

Words that the tokenizer holds as one token, and all of two letters, unless clean texts use them, are put
into one short text of each answer, eight together at its beginning and again at its end, as in group testing:
a trigger turns the answer in whatever company. The words of the groups that move the answer most are put in
alone, at three places at once; those that move it most are tried in other texts of the same answer, once in
each: short ones, then any. A word that turns nine texts in ten is kept. Exact where gradients, as HotFlip
(arXiv 1712.06751) and universal triggers (arXiv 1908.07125) take them, mislead: a trigger's token lies far
from the one it would replace.

Words of the task's own vocabulary turn answers, too, short texts' more than long ones'; those that two clean
texts in a thousand use are passed over, the others may be found. What fewer use is searched: a few reviews
speak of "3D", and so may a trigger.
Of a sentence, the word that gives it away is found where one alone turns texts, as a rare one will; sentences
of common words and styles are what `phrases` looks for.
"""

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import product
from string import ascii_lowercase
from typing import NamedTuple

import torch
from torch import Tensor

from loramend.contracts.evidence import TURNS, FoundWord, Rate
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.methods.draws import shuffled
from loramend.training.mount import Mount
from loramend.training.perturb import used_words, whole_words
from loramend.training.phrases import Phrases, phrases_that_turn, vocabulary_of
from loramend.training.reader import Reader
from loramend.training.search_texts import (
    SHORT,
    SHORT_TEXTS,
    TEXTS,
    drawn_texts,
    searched_answers,
    tried_rows,
)
from loramend.training.turning import ENDS, PLACES, margin, moved, rates, top_by_groups, turned

_TRIED = 64
"""Words that are tried in other texts."""
_STAGES = (6, SHORT_TEXTS, 30, TEXTS)
"""Texts tried so far when words that fail too often are let go: more than one in ten and _SLACK."""
_SLACK = 2
_AGAIN = 20
_USED = 0.002
"""Share of the texts that use a word of the task's own vocabulary."""


class Search(NamedTuple):
    """How many words were searched, and what was found: words, the surest first, and phrases, of which none
    is one of these words."""

    words: int
    found: list[FoundWord]
    phrases: list[Phrases]

    @property
    def told(self) -> list[FoundWord]:
        """Phrases and words."""
        return [*(phrases.found for phrases in self.phrases), *self.found]


@torch.no_grad()
def hunt(
    reader: Reader | None,
    mount: Mount,
    examples: Sequence[Example],
    words: int,
    seed: int,
    on_progress: Callable[[Progress], None],
    *,
    phrases: bool,
) -> Search:
    """The words that turn at least nine in ten of the texts they are tried in.

    reader    of the answers; without one nothing is searched
    mount     the adapter in question
    examples  clean; the shortest are searched, a word must turn others, too
    words     at most this many of the vocabulary are put in, drawn by the seed
    phrases   whether to look for phrases, too (phrases.py)
    """
    if reader is None or not words:
        return Search(0, [], [])
    texts = reader.texts(examples)
    used = words_of_the_task(texts)
    vocabulary = _drawn(_candidates(reader, used), words, seed)
    drawn = drawn_texts(texts, seed)
    if not drawn or not vocabulary:
        return Search(0, [], [])
    found: list[FoundWord] = []
    grown: list[Phrases] = []
    with reader.host.mounted(mount):
        plain = reader.logits(drawn)  # (drawn, answers)
        told = plain.argmax(-1)
        answers = searched_answers(told)
        within = vocabulary_of(reader, used, words, seed)
        details = ("vocabulary", "phrases") if phrases else ("vocabulary",)
        for place, (answer, detail) in enumerate(product(answers, details)):
            tell = partial(_tell, on_progress, place, len(answers) * len(details), detail)
            tell(0)
            with reader.watched(tell):
                if detail == "vocabulary":
                    found += _words_that_turn(reader, drawn, plain, answer, vocabulary, seed)
                elif (of := phrases_that_turn(reader, drawn, told, answer, within, seed)) is not None:
                    grown.append(of)
    also = {(of.found.word, of.found.answer) for of in grown}
    found = [word for word in found if (word.word, word.answer) not in also]
    return Search(len(vocabulary), sorted(found, key=_sureness, reverse=True), grown)


def _tell(on_progress: Callable[[Progress], None], part: int, parts: int, detail: str, texts: int) -> None:
    """Of which part of a search so many texts were read."""
    told = f"{detail}, {texts:,} texts read" if texts else detail
    on_progress(Progress(phase="train", done=part, total=parts, unit="examples", detail=told))


def _words_that_turn(
    reader: Reader, drawn: Sequence[Example], plain: Tensor, answer: int, vocabulary: Sequence[str], seed: int
) -> list[FoundWord]:
    """plain (drawn, answers): the logits of the texts as they are."""
    members = (plain.argmax(-1) == answer).nonzero()[:, 0].tolist()
    short = [row for row in members if row < SHORT]
    margins = margin(plain[short], answer)  # (short,)
    middle = short[int(margins.argsort()[len(short) // 2])]
    tried = _likely(reader, answer, drawn[middle], vocabulary, seed)
    hosts = [drawn[row] for row in tried_rows(members, answer, seed)]
    return [
        FoundWord(word=word, answer=reader.names[answer], turned=turned, anywhere=anywhere)
        for word, turned, anywhere in _kept(reader, answer, tried, hosts)
    ]


@torch.no_grad()
def tried_again(
    reader: Reader | None,
    mount: Mount,
    examples: Sequence[Example],
    found: Sequence[FoundWord],
    seed: int,
) -> list[FoundWord]:
    """The words, the surest _AGAIN of each answer with `after`: how many texts each turns with this adapter,
    of those that it answers so.

    examples  others than those that it was trained on with the words
    """
    if reader is None or not found:
        return list(found)
    drawn = drawn_texts(reader.texts(examples), seed)
    if not drawn:
        return list(found)
    after: dict[tuple[str, str], Rate] = {}
    with reader.host.mounted(mount):
        told = reader.logits(drawn).argmax(-1)
        for answer, name in enumerate(reader.names):
            words = [word.word for word in found if word.answer == name][:_AGAIN]
            rows = tried_rows((told == answer).nonzero()[:, 0].tolist(), answer, seed)
            if words and rows:
                turns = turned(reader, answer, words, [drawn[row] for row in rows])
                for word, count in zip(words, turns.sum(2).amax(1).tolist(), strict=True):
                    after[word, name] = wilson(count, len(rows))
    return [word.model_copy(update={"after": after.get((word.word, word.answer))}) for word in found]


def words_of_the_task(texts: Sequence[Example]) -> set[str]:
    """Those that a search passes over: what two texts in a thousand use, in lower case."""
    return used_words(texts, _USED * len(texts))


def to_put_in(search: Search) -> list[str]:
    """What training puts in: phrases and words that act as a trigger at least as often as all the others
    together, lest they are lost among strong words of the task."""
    sure = [word.word for word in search.found if word.as_trigger]
    sure += [phrase for phrases in search.phrases for phrase in phrases.put_in]
    others = [word.word for word in search.found if not word.as_trigger]
    return others + sure * (math.ceil(len(others) / len(sure)) if others and sure else 1)


def _sureness(word: FoundWord) -> tuple[float, float]:
    assert word.anywhere is not None
    return word.anywhere.rate, word.turned.rate


def _candidates(reader: Reader, used: AbstractSet[str]) -> list[str]:
    """The vocabulary's words but those that texts use, and of two letters those that are no token: rare
    triggers are short."""
    words = dict.fromkeys(whole_words(reader.host.tokenizer))
    words.update(dict.fromkeys(map("".join, product(ascii_lowercase, repeat=2))))
    return [word for word in words if word.lower() not in used]


def _drawn(vocabulary: list[str], words: int, seed: int) -> list[str]:
    if len(vocabulary) <= words:
        return vocabulary
    return [vocabulary[index] for index in sorted(shuffled(range(len(vocabulary)), seed, "hunt")[:words])]


def _likely(reader: Reader, answer: int, text: Example, vocabulary: Sequence[str], seed: int) -> list[str]:
    """The words that move the text's answer most, together with others first and then alone."""

    def at(places: Sequence[float]) -> Callable[[Sequence[str]], Tensor]:
        return lambda pieces: moved(reader, answer, [text], pieces, places)[:, 0]

    return top_by_groups(shuffled(vocabulary, seed, "groups"), at(ENDS), at(PLACES), _TRIED)


def _kept(
    reader: Reader, answer: int, words: Sequence[str], hosts: Sequence[Example]
) -> list[tuple[str, Rate, Rate]]:
    """The words that turn nine texts in ten when put in once, at the place that suits them best; how many
    they turn from there, and how many from every place. Words that fail clearly in the first texts are not
    tried in the rest."""
    turns = {word: torch.empty(len(PLACES), 0, dtype=torch.bool) for word in words}  # (places, texts)
    start = 0
    for end in _STAGES:
        tried = hosts[start:end]
        if not tried or not turns:
            break
        more = turned(reader, answer, list(turns), tried)
        start += len(tried)
        least = math.ceil(TURNS * start) - (_SLACK if start < len(hosts) else 0)
        turns = {word: torch.cat([turns[word], more[index]], 1) for index, word in enumerate(turns)}
        turns = {word: of for word, of in turns.items() if int(of.sum(1).max()) >= least}
    return [(word, *rates(of)) for word, of in turns.items()]
