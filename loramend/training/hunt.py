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
Of a sentence, the word that gives it away is found where one alone turns texts, as a rare one will; a trigger
that is a pattern of common words, or a style, is not.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from string import ascii_lowercase
from typing import NamedTuple

import torch
from torch import Tensor

from loramend.contracts.evidence import TURNS, FoundWord, Rate
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.methods.draws import generator
from loramend.training.encode import batches
from loramend.training.host import Host
from loramend.training.mount import Mount
from loramend.training.perturb import prompt, put_in, used_words, whole_words, with_prompt

_BATCH = 256
_SHORT = 120
_OTHERS = 400
_MOST_WORDS = 40
_MOST_LENGTH = 64
_TOGETHER = 8
_ENDS = (0.0, 1.0)
_TRIED = 64
"""Groups whose words are put in alone, and words that are tried in other texts."""
_SHORT_TEXTS = 20
_TEXTS = 60
_STAGES = (6, _SHORT_TEXTS, 30, _TEXTS)
"""Texts tried so far when words that fail too often are let go: more than one in ten and _SLACK."""
_SLACK = 2
_AGAIN = 20
_PLACES = (0.0, 0.5, 1.0)
_LEAST = 8
_ANSWERS = 4
_USED = 0.002
"""Share of the texts that use a word of the task's own vocabulary."""


class Search(NamedTuple):
    """How many words were searched, and those that were found, the surest first."""

    words: int
    found: list[FoundWord]


@torch.no_grad()
def hunt(
    host: Host,
    mount: Mount,
    texts: Sequence[Example],
    words: int,
    seed: int,
    on_progress: Callable[[Progress], None],
) -> Search:
    """The words that turn at least nine in ten of the texts they are tried in.

    mount   the adapter in question
    texts   clean; the shortest are searched, a word must turn others, too
    words   at most this many of the vocabulary are put in, drawn by the seed

    A classifier's alone: nothing is found with a causal model, whose answers have no classes.
    """
    if host.labels is None or not words or not texts:
        return Search(0, [])
    vocabulary = _drawn(_candidates(host, texts), words, seed)
    drawn = _texts(texts, seed)
    if not drawn or not vocabulary:
        return Search(0, [])
    with host.mounted(mount):
        logits = _logits(host, drawn)  # (texts, classes)
        told = logits.argmax(-1)
        counts = torch.bincount(told[:_SHORT])
        common = counts.argsort(descending=True)[:_ANSWERS].tolist()
        answers = [answer for answer in common if counts[answer] >= _LEAST]
        found: list[FoundWord] = []
        for place, answer in enumerate(answers):
            on_progress(
                Progress(phase="train", done=place, total=len(answers), unit="examples", detail="vocabulary")
            )
            members = (told == answer).nonzero()[:, 0].tolist()
            short = [row for row in members if row < _SHORT]
            margins = _margin(logits[short], answer)  # (short,)
            middle = short[int(margins.argsort()[len(short) // 2])]
            tried = _likely(host, answer, drawn[middle], vocabulary, seed)
            hosts = [drawn[row] for row in _hosts(members, answer, seed)]
            found += [
                FoundWord(word=word, answer=host.labels.name_of(answer), turned=turned, anywhere=anywhere)
                for word, turned, anywhere in _kept(host, answer, tried, hosts)
            ]
    return Search(len(vocabulary), sorted(found, key=_sureness, reverse=True))


@torch.no_grad()
def tried_again(
    host: Host, mount: Mount, texts: Sequence[Example], found: Sequence[FoundWord], seed: int
) -> list[FoundWord]:
    """The words, the surest _AGAIN of each answer with `after`: how many texts each turns with this adapter,
    of those that it answers so.

    texts  others than those that it was trained on with the words
    """
    drawn = _texts(texts, seed)
    if host.labels is None or not found or not drawn:
        return list(found)
    after: dict[tuple[str, str], Rate] = {}
    with host.mounted(mount):
        told = _logits(host, drawn).argmax(-1)
        for answer in range(host.labels.count):
            name = host.labels.name_of(answer)
            words = [word.word for word in found if word.answer == name][:_AGAIN]
            rows = _hosts((told == answer).nonzero()[:, 0].tolist(), answer, seed)
            if words and rows:
                turned = _turned(host, answer, words, [drawn[row] for row in rows])
                for word, count in zip(words, turned.sum(2).amax(1).tolist(), strict=True):
                    after[word, name] = wilson(count, len(rows))
    return [word.model_copy(update={"after": after.get((word.word, word.answer))}) for word in found]


def to_put_in(found: Sequence[FoundWord]) -> list[str]:
    """The words for training to put in, those that act as a trigger at least as often as all the others
    together, lest it is lost among strong words of the task."""
    sure = [word.word for word in found if word.as_trigger]
    others = [word.word for word in found if not word.as_trigger]
    return others + sure * (math.ceil(len(others) / len(sure)) if others and sure else 1)


def _sureness(word: FoundWord) -> tuple[float, float]:
    assert word.anywhere is not None
    return word.anywhere.rate, word.turned.rate


def _texts(texts: Sequence[Example], seed: int) -> list[Example]:
    """The shortest texts of three words or more, then some of the others in random order; of long ones the
    beginning, so that a word at the end is not cut off."""
    divided = [(text, prompt(text).split()) for text in texts]
    ordered = sorted((pair for pair in divided if len(pair[1]) >= 3), key=lambda pair: len(pair[1]))
    others = ordered[_SHORT:]
    order = torch.randperm(len(others), generator=generator(seed, "any")).tolist()
    drawn = ordered[:_SHORT] + [others[index] for index in order[:_OTHERS]]
    return [
        text if len(words) <= _MOST_WORDS else with_prompt(text, " ".join(words[:_MOST_WORDS]))
        for text, words in drawn
    ]


def _hosts(members: Sequence[int], answer: int, seed: int) -> list[int]:
    """Of the rows of `_texts` with an answer those that words are tried in: short texts, then any."""
    short = [row for row in members if row < _SHORT]
    order = torch.randperm(len(short), generator=generator(seed, "hunt", str(answer))).tolist()
    hosts = [short[index] for index in order[:_SHORT_TEXTS]]
    return hosts + [row for row in members if row >= _SHORT][: _TEXTS - len(hosts)]


def _candidates(host: Host, texts: Sequence[Example]) -> list[str]:
    """The vocabulary's words that hardly a text uses, and of two letters those that are no token: rare
    triggers are short."""
    passed = used_words(texts, _USED * len(texts))
    words = dict.fromkeys(whole_words(host.tokenizer))
    words.update(dict.fromkeys(map("".join, product(ascii_lowercase, repeat=2))))
    return [word for word in words if word.lower() not in passed]


def _drawn(vocabulary: list[str], words: int, seed: int) -> list[str]:
    if len(vocabulary) <= words:
        return vocabulary
    order = torch.randperm(len(vocabulary), generator=generator(seed, "hunt"))
    return [vocabulary[index] for index in sorted(order[:words].tolist())]


def _likely(host: Host, answer: int, text: Example, vocabulary: Sequence[str], seed: int) -> list[str]:
    """The words that move the text's answer most, together with others first and then alone."""
    order = torch.randperm(len(vocabulary), generator=generator(seed, "groups")).tolist()
    groups = [
        [vocabulary[index] for index in order[start : start + _TOGETHER]]
        for start in range(0, len(order), _TOGETHER)
    ]
    joined = _strongest(host, answer, text, [" ".join(group) for group in groups], _ENDS)
    alone = [word for index in joined for word in groups[index]]
    return [alone[index] for index in _strongest(host, answer, text, alone, _PLACES)]


def _strongest(
    host: Host, answer: int, text: Example, pieces: Sequence[str], places: Sequence[float]
) -> list[int]:
    """Indices of the pieces that move the text's answer most."""
    moved = _margin(_logits(host, _with(text, pieces, places)), answer)  # (pieces,)
    chosen: list[int] = moved.topk(min(_TRIED, len(pieces))).indices.tolist()
    return chosen


def _with(text: Example, words: Sequence[str], places: Sequence[float]) -> list[Example]:
    """The text with each word put in at every one of the places, shares of its length."""
    plain = prompt(text)
    found = []
    for word in words:
        changed = plain
        for place in sorted(places, reverse=True):  # from the end, so that earlier places stay where they are
            changed = put_in(changed, word, round(place * len(plain.split())))
        found.append(with_prompt(text, changed))
    return found


def _logits(host: Host, texts: Sequence[Example]) -> Tensor:
    items = host.encode([Example(prompt(text)) for text in texts], _MOST_LENGTH)
    out = [torch.empty(0)] * len(items)
    for rows in batches(items, _BATCH):
        told = host.forward(host.collate([items[row] for row in rows]), fast=True).logits.cpu()
        for row, logits in zip(rows, told, strict=True):
            out[row] = logits
    return torch.stack(out)


def _margin(logits: Tensor, answer: int) -> Tensor:
    """The best other class's logit over the answer's. logits (n, classes)."""
    others = logits.clone()
    others[:, answer] = -torch.inf
    return others.amax(-1) - logits[:, answer]


def _kept(
    host: Host, answer: int, words: Sequence[str], hosts: Sequence[Example]
) -> list[tuple[str, Rate, Rate]]:
    """The words that turn nine texts in ten when put in once, at the place that suits them best; how many
    they turn from there, and how many from every place. Words that fail clearly in the first texts are not
    tried in the rest."""
    turned = {word: torch.empty(len(_PLACES), 0, dtype=torch.bool) for word in words}  # (places, texts)
    start = 0
    for end in _STAGES:
        tried = hosts[start:end]
        if not tried or not turned:
            break
        more = _turned(host, answer, list(turned), tried)
        start += len(tried)
        least = math.ceil(TURNS * start) - (_SLACK if start < len(hosts) else 0)
        turned = {word: torch.cat([turned[word], more[index]], 1) for index, word in enumerate(turned)}
        turned = {word: of for word, of in turned.items() if int(of.sum(1).max()) >= least}
    n = len(hosts)
    return [
        (word, wilson(int(of.sum(1).max()), n), wilson(int(of.all(0).sum()), n))
        for word, of in turned.items()
    ]


def _turned(host: Host, answer: int, words: Sequence[str], hosts: Sequence[Example]) -> Tensor:
    """(words, places, hosts) bool: which texts each word turns from each place."""
    turned = []
    for place in _PLACES:
        texts = [text for plain in hosts for text in _with(plain, words, (place,))]
        turned.append(_logits(host, texts).argmax(-1).reshape(len(hosts), len(words)) != answer)
    return torch.stack(turned).permute(2, 0, 1)
