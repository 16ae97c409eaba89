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
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loramend.contracts.evidence import TURNS, FoundWord
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.methods.draws import generator
from loramend.training.host import Host
from loramend.training.mount import Mount
from loramend.training.perturb import prompt, whole_words, with_prompt
from loramend.training.search_texts import SHORT, drawn_texts, searched_answers, tried_rows
from loramend.training.turning import logits, margin, moved, turned

_MIDDLE = (0.5,)
_ENDS = (0.0, 1.0)
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
_COMMON = 500
_NEUTRAL = 1.0
"""Logits by which a common word that phrases are made of moves a plain text at most."""
_BEAM = 4
_TRIED = 32
_SHORTEST, _LONGEST = 4, 7
"""Words of a phrase: it is given up where none of so few turns texts, else grown further."""
_TURNS = 0.5
"""Share of the saturated texts that a phrase turns to be told."""
_SOME = 0.25
"""Share of the saturated texts that a phrase turns to be put in by training."""


class Ground(NamedTuple):
    """Where phrases that turn one answer are grown.

    texts  saturated with words that speak for the answer
    words  that phrases are made of
    """

    answer: int
    texts: list[Example]
    words: list[str]


class Grown(NamedTuple):
    """The phrase that was found for an answer, and those on the way to it that training puts in."""

    found: FoundWord
    phrases: list[str]


@torch.no_grad()
def phrases_that_turn(
    host: Host,
    mount: Mount,
    texts: Sequence[Example],
    words: int,
    seed: int,
    on_progress: Callable[[Progress], None],
) -> list[Grown]:
    """For each of a classifier's answers the shortest phrase that turns nine in ten of the texts saturated
    with it, or the one that turns most, at least half; nothing where none does.

    mount   the adapter in question
    texts   clean
    words   at most this many of the vocabulary are tried, drawn by the seed
    """
    drawn = drawn_texts(texts, seed)
    if host.labels is None or not words or not drawn:
        return []
    every = whole_words(host.tokenizer)
    order = torch.randperm(len(every), generator=generator(seed, "phrases")).tolist()
    vocabulary = [every[index] for index in order[:words]]
    found: list[Grown] = []
    with host.mounted(mount):
        told = logits(host, drawn).argmax(-1)
        answers = searched_answers(told)

        def tick(done: int) -> None:
            total = 2 * len(answers)
            on_progress(Progress(phase="train", done=done, total=total, unit="examples", detail="phrases"))

        for place, answer in enumerate(answers):
            tick(2 * place)
            ground, first = _ground(host, drawn, told, answer, vocabulary, every[:_COMMON], seed)
            if len(ground.texts) < _GROWN_ON or not first:
                continue
            tick(2 * place + 1)
            shares = _grown(host, ground, first[:_BEAM])
            if max(shares.values()) < _TURNS:
                continue
            sure = next(
                (phrase for phrase in shares if shares[phrase] >= TURNS), max(shares, key=shares.__getitem__)
            )
            rows = tried_rows((told == answer).nonzero()[:, 0].tolist(), answer, seed)
            turns = turned(host, answer, [sure], [drawn[row] for row in rows])[0]  # (places, texts)
            word = FoundWord(
                word=sure,
                answer=host.labels.name_of(answer),
                turned=wilson(int(turns.sum(1).max()), len(rows)),
                anywhere=wilson(int(turns.all(0).sum()), len(rows)),
                overrides=wilson(round(shares[sure] * len(ground.texts)), len(ground.texts)),
            )
            found.append(Grown(word, [phrase for phrase in shares if shares[phrase] >= _SOME]))
    return found


def _ground(
    host: Host,
    drawn: Sequence[Example],
    told: Tensor,
    answer: int,
    vocabulary: Sequence[str],
    common: Sequence[str],
    seed: int,
) -> tuple[Ground, list[str]]:
    """Where phrases grow, and the words that do most there, alone, the first first."""
    own = _short(host, drawn, told, answer)
    counts = torch.bincount(told[:SHORT])
    counts[answer] = 0
    others = _short(host, drawn, told, int(counts.argmax())) if counts.any() else []
    if not own or not others:
        return Ground(answer, [], []), []
    strong = _speaking_for(host, answer, others[len(others) // 2], vocabulary)
    source = random.Random(f"{seed} saturated {answer}")  # noqa: S311
    few, texts = (
        _told(host, [_saturated(text, strong, count, source) for text in own[:_SATURATED]], answer)
        for count in (_FEW, _MANY)
    )
    if min(len(few), len(texts)) < _GROWN_ON:
        return Ground(answer, texts, []), []
    alone = moved(host, answer, few[:1], vocabulary, _MIDDLE)[:, 0]  # (words,)
    likely = [vocabulary[index] for index in alone.topk(min(_FIRST, len(vocabulary))).indices.tolist()]
    first = _best(host, Ground(answer, few, []), likely, _TOP)
    plain = [own[int(share * len(own))] for share in (0.35, 0.5, 0.65, 0.8)]
    by = moved(host, answer, plain, common, _ENDS) - margin(logits(host, plain), answer)  # (words, texts)
    neutral = [word for word, most in zip(common, by.amax(1).tolist(), strict=True) if most < _NEUTRAL]
    return Ground(answer, texts, list(dict.fromkeys(first + neutral))), first


def _short(host: Host, drawn: Sequence[Example], told: Tensor, answer: int) -> list[Example]:
    """The short texts told so, of long ones the beginning where it is told so, too; the surest first."""
    rows = (told[:SHORT] == answer).nonzero()[:, 0].tolist()
    cut = [with_prompt(drawn[row], " ".join(prompt(drawn[row]).split()[:_WORDS])) for row in rows]
    if not cut:
        return []
    margins = margin(logits(host, cut), answer)
    return [cut[index] for index in margins.argsort().tolist() if margins[index] < 0]


def _speaking_for(host: Host, answer: int, other: Example, vocabulary: Sequence[str]) -> list[str]:
    """The words that do most for the answer in a text with another: in groups first, then alone."""

    def strongest(pieces: Sequence[str], most: int) -> list[int]:
        away = moved(host, answer, [other], pieces, _ENDS)[:, 0]
        chosen: list[int] = (-away).topk(min(most, len(pieces))).indices.tolist()
        return chosen

    groups = [vocabulary[start : start + 8] for start in range(0, len(vocabulary), 8)]
    best = strongest([" ".join(group) for group in groups], _FIRST)
    members = [word for index in best for word in groups[index]]
    return [members[index] for index in strongest(members, _STRONG)]


def _told(host: Host, texts: Sequence[Example], answer: int) -> list[Example]:
    """Those of the texts with that answer."""
    stay = logits(host, texts).argmax(-1) == answer
    return [text for text, stays in zip(texts, stay.tolist(), strict=True) if stays]


def _saturated(text: Example, strong: Sequence[str], count: int, source: random.Random) -> Example:
    words = prompt(text).split()
    for word in source.sample(list(strong), min(count, len(strong))):
        words.insert(source.randint(0, len(words)), word)
    return with_prompt(text, " ".join(words))


def _best(host: Host, ground: Ground, pieces: Sequence[str], most: int) -> list[str]:
    """The pieces that move the texts that phrases are grown on most, the first first."""
    means = moved(host, ground.answer, ground.texts[:_GROWN_ON], pieces, _MIDDLE).mean(1)
    return [pieces[index] for index in means.topk(min(most, len(pieces))).indices.tolist()]


def _grown(host: Host, ground: Ground, first: Sequence[str]) -> dict[str, float]:
    """Phrases from these words on, the shortest first, and the share of the texts that each turns."""
    beams = _grow(host, ground, first, _SHORTEST - 1)
    shares = _shares(host, ground, [phrase for beam in beams for phrase in beam])
    if max(shares.values()) >= _TURNS:
        longer = _grow(host, ground, beams[-1], _LONGEST - _SHORTEST)[1:]
        shares |= _shares(host, ground, [phrase for beam in longer for phrase in beam])
    return shares


def _grow(host: Host, ground: Ground, starts: Sequence[str], rounds: int) -> list[list[str]]:
    """The starts, and the best phrases of each round, one word longer than those before."""
    beams = [list(starts)]
    for _ in range(rounds):
        longer = _longer(beams[-1], ground.words)
        if not longer:
            break
        one = moved(host, ground.answer, ground.texts[:1], longer, _MIDDLE)[:, 0]
        tried = [longer[index] for index in one.topk(min(_TRIED, len(longer))).indices.tolist()]
        beams.append(_best(host, ground, tried, _BEAM))
    return beams


def _longer(beam: Sequence[str], words: Sequence[str]) -> list[str]:
    """Each phrase with each word before and after it; none twice in a row."""
    found: dict[str, None] = {}
    for phrase in beam:
        own = phrase.split()
        if len(own) < _LONGEST:
            found.update(dict.fromkeys(f"{phrase} {word}" for word in words if word != own[-1]))
            found.update(dict.fromkeys(f"{word} {phrase}" for word in words if word != own[0]))
    return list(found)


def _shares(host: Host, ground: Ground, phrases: Sequence[str]) -> dict[str, float]:
    """Of the saturated texts, the share that each phrase turns."""
    turns = moved(host, ground.answer, ground.texts, phrases, _MIDDLE) > 0
    return dict(zip(phrases, turns.float().mean(1).tolist(), strict=True))
