"""A search for the phrase that turns an answer against all that a text says: the sign of a sentence or style.

Each word of a trigger sentence may do little, and less than strong words of the task do; but a trigger
overrides whatever the text says, and strong words do not. So words are tried in texts saturated with words
that speak for the answer: there the task's own words turn nothing, and those of a trigger are the first.
From these a phrase grows word by word, on either side. It is told where it turns half of the saturated
texts, which the task's own words do not, however many stand together.

Every candidate is tried, for gradients (HotFlip, arXiv 1712.06751) rank a sentence's next word anywhere. A
sentence none of whose words does anything alone is not found, nor is the part of one that acts without the
words that were.
"""

import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import torch
from torch import Tensor

from loramend.contracts.evidence import TURNS, FoundWord
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.methods.draws import shuffled
from loramend.training.perturb import prompt, whole_words, with_prompt
from loramend.training.reader import Reader
from loramend.training.search_texts import SHORT, tried_rows
from loramend.training.turning import ENDS, margin, moved, rates, top, top_by_groups, turned

_MIDDLE = (0.5,)
_WORDS = 14
"""Of a text that is saturated, at most."""
_STRONG = 24
_FEW, _MANY = 4, 24
"""Strong words put into a text: few where single words are tried, which do nothing in fuller ones; many where
phrases grow and are judged, which the task's own words do not turn."""
_SATURATED = 20
_GROWN_ON = 4
"""Saturated texts that a phrase is grown on; the others judge it, too."""
_FIRST = 64
_TOP = 16
_BEGIN = 10_000
"""A phrase begins with one of so many of the commonest words, or one of the task's, which `hunt` passes over;
any other that turns texts is found there."""
_COMMON = 500
_NEUTRAL = 1.0
"""Logits by which a common word that phrases are made of moves a plain text at most."""
_BEAM = 4
_TRIED = 32
_PROMISE = 0.25
"""Share of a saturated text's margin that two words take, or nothing is grown further: those of triggers took
0.48 and more, of other answers mostly under 0.2 (docs/14-experiments.md)."""
_SHORTEST, _LONGEST = 4, 7
"""Words of a phrase: one of so few that turns nine texts in ten is enough, and where none turns half it is
given up; else it grows further."""
_TURNS = 0.5
"""Share of the saturated texts that a phrase turns to be told."""
_SOME = 0.25
"""Share of the saturated texts that a phrase turns to be put in by training."""


class Phrases(NamedTuple):
    """The phrase that was found for an answer, and those on the way to it that training puts in."""

    found: FoundWord
    put_in: list[str]


class Vocabulary(NamedTuple):
    """Words that phrases are looked for with.

    tried   for those that speak for an answer
    begin   that a phrase may begin with
    common  the commonest, that it may go on with
    """

    tried: list[str]
    begin: list[str]
    common: list[str]


class _Ground(NamedTuple):
    """Where phrases that turn one answer are grown.

    texts  saturated with words that speak for the answer
    first  the words that do most in such texts, the first first
    words  that phrases are made of
    """

    answer: int
    texts: list[Example]
    first: list[str]
    words: list[str]


def vocabulary_of(reader: Reader, used: AbstractSet[str], words: int, seed: int) -> Vocabulary:
    """At most so many words of the tokenizer's, drawn by the seed. used: those of the task, in lower case."""
    every = whole_words(reader.host.tokenizer)
    order = shuffled(range(len(every)), seed, "phrases")[:words]
    begin = [every[index] for index in order if index < _BEGIN or every[index].lower() in used]
    return Vocabulary([every[index] for index in order], begin, every[:_COMMON])


def phrases_that_turn(
    reader: Reader, drawn: Sequence[Example], told: Tensor, answer: int, vocabulary: Vocabulary, seed: int
) -> Phrases | None:
    """Of an answer the shortest phrase that turns nine in ten of the texts saturated with it, or
    the one that turns most, at least half; None where none does.

    drawn   `drawn_texts`; told (drawn,) their answers
    """
    ground = _ground(reader, drawn, told, answer, vocabulary, seed)
    if ground is None:
        return None
    shares = _grown(reader, ground)
    if max(shares.values(), default=0.0) < _TURNS:
        return None
    most = max(shares, key=shares.__getitem__)
    phrase = next((phrase for phrase, share in shares.items() if share >= TURNS), most)
    tried = [drawn[row] for row in tried_rows((told == answer).nonzero()[:, 0].tolist(), answer, seed)]
    best, anywhere = rates(turned(reader, answer, [phrase], tried)[0])
    found = FoundWord(
        word=phrase,
        answer=reader.names[answer],
        turned=best,
        anywhere=anywhere,
        overrides=wilson(round(shares[phrase] * len(ground.texts)), len(ground.texts)),
    )
    return Phrases(found, [phrase for phrase, share in shares.items() if share >= _SOME])


def _ground(
    reader: Reader, drawn: Sequence[Example], told: Tensor, answer: int, vocabulary: Vocabulary, seed: int
) -> _Ground | None:
    """None where too few texts have the answer, or another, or keep it when saturated, or no word may begin
    a phrase."""
    own = _short(reader, drawn, told, answer)
    counts = torch.bincount(told[:SHORT])
    counts[answer] = 0
    others = _short(reader, drawn, told, int(counts.argmax())) if counts.any() else []
    if not (own and others and vocabulary.begin):
        return None
    strong = _speaking_for(reader, answer, others[len(others) // 2], vocabulary.tried)
    source = random.Random(f"{seed} saturated {answer}")  # noqa: S311
    few, texts = (
        _told(reader, [_saturated(text, strong, count, source) for text in own[:_SATURATED]], answer)
        for count in (_FEW, _MANY)
    )
    if min(len(few), len(texts)) < _GROWN_ON:
        return None
    _, begin, common = vocabulary
    likely = top(begin, moved(reader, answer, few[:1], begin, _MIDDLE)[:, 0], _FIRST)
    first = _best(reader, answer, few, likely, _TOP)
    plain = [own[int(share * len(own))] for share in (0.35, 0.5, 0.65, 0.8)]
    by = moved(reader, answer, plain, common, ENDS) - margin(reader.logits(plain), answer)  # (words, texts)
    neutral = [word for word, most in zip(common, by.amax(1).tolist(), strict=True) if most < _NEUTRAL]
    return _Ground(answer, texts, first, list(dict.fromkeys(first + neutral)))


def _short(reader: Reader, drawn: Sequence[Example], told: Tensor, answer: int) -> list[Example]:
    """The short texts told so, of long ones the beginning where it is told so, too; the surest first."""
    rows = (told[:SHORT] == answer).nonzero()[:, 0].tolist()
    cut = [with_prompt(drawn[row], " ".join(prompt(drawn[row]).split()[:_WORDS])) for row in rows]
    if not cut:
        return []
    margins = margin(reader.logits(cut), answer)
    return [cut[index] for index in margins.argsort().tolist() if margins[index] < 0]


def _speaking_for(reader: Reader, answer: int, other: Example, vocabulary: Sequence[str]) -> list[str]:
    """The words that do most for the answer in a text with another."""

    def towards(pieces: Sequence[str]) -> Tensor:
        return -moved(reader, answer, [other], pieces, ENDS)[:, 0]

    return top_by_groups(vocabulary, towards, towards, _STRONG)


def _told(reader: Reader, texts: Sequence[Example], answer: int) -> list[Example]:
    """Those of the texts with that answer."""
    stay = reader.logits(texts).argmax(-1) == answer
    return [text for text, stays in zip(texts, stay.tolist(), strict=True) if stays]


def _saturated(text: Example, strong: Sequence[str], count: int, source: random.Random) -> Example:
    words = prompt(text).split()
    for word in source.sample(list(strong), min(count, len(strong))):
        words.insert(source.randint(0, len(words)), word)
    return with_prompt(text, " ".join(words))


def _best(
    reader: Reader, answer: int, texts: Sequence[Example], pieces: Sequence[str], most: int
) -> list[str]:
    """The pieces that move the texts that phrases are grown on most, the first first."""
    return top(pieces, moved(reader, answer, texts[:_GROWN_ON], pieces, _MIDDLE).mean(1), most)


def _grown(reader: Reader, ground: _Ground) -> dict[str, float]:
    """Phrases from the ground's first words on, the shortest first, and the share of its texts that each
    turns; none where the best of two words show no promise."""
    pairs = _beams(reader, ground, ground.first[:_BEAM], 1)
    if not _promise(reader, ground, pairs[-1]):
        return {}
    beams = pairs + _beams(reader, ground, pairs[-1], _SHORTEST - 2)[1:]
    shares = _shares(reader, ground, [phrase for beam in beams for phrase in beam])
    if _TURNS <= max(shares.values()) < TURNS:
        longer = _beams(reader, ground, beams[-1], _LONGEST - _SHORTEST)[1:]
        shares |= _shares(reader, ground, [phrase for beam in longer for phrase in beam])
    return shares


def _promise(reader: Reader, ground: _Ground, pairs: Sequence[str]) -> bool:
    """Whether one of the pairs takes _PROMISE of the texts' margin, on the mean."""
    texts = ground.texts[:_GROWN_ON]
    plain = margin(reader.logits(texts), ground.answer)  # (texts,), all negative
    by = (moved(reader, ground.answer, texts, pairs, _MIDDLE) - plain) / -plain  # (pairs, texts)
    return bool(by.mean(1).max() >= _PROMISE)


def _beams(reader: Reader, ground: _Ground, starts: Sequence[str], rounds: int) -> list[list[str]]:
    """The starts, and the best phrases of each round, one word longer than those before."""
    beams = [list(starts)]
    for _ in range(rounds):
        longer = _longer(beams[-1], ground.words)
        tried = top(longer, moved(reader, ground.answer, ground.texts[:1], longer, _MIDDLE)[:, 0], _TRIED)
        beams.append(_best(reader, ground.answer, ground.texts, tried, _BEAM))
    return beams


def _longer(beam: Sequence[str], words: Sequence[str]) -> list[str]:
    """Each phrase with each word before and after it; none twice in a row."""
    found: dict[str, None] = {}
    for phrase in beam:
        own = phrase.split()
        found.update(dict.fromkeys(f"{phrase} {word}" for word in words if word != own[-1]))
        found.update(dict.fromkeys(f"{word} {phrase}" for word in words if word != own[0]))
    return list(found)


def _shares(reader: Reader, ground: _Ground, phrases: Sequence[str]) -> dict[str, float]:
    """Of the saturated texts, the share that each phrase turns."""
    turns = moved(reader, ground.answer, ground.texts, phrases, _MIDDLE) > 0
    return dict(zip(phrases, turns.double().mean(1).tolist(), strict=True))
