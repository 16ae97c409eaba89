"""What training does to texts: words and sentences put in with the answer kept, and new texts from pieces of
clean ones."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from loramend.data.examples import Example, Message
from loramend.training.neutral import INSERTED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"\w+")
_WORD_STARTS = ("Ġ", "▁")
"""How byte-level BPE and SentencePiece mark a token that begins a word; WordPiece marks the others."""

T = TypeVar("T")

_INSERTED_WORDS = (1, 1, 2, 3)
_SPAN_WORDS = (3, 8)
SPANS = 0.5
_ODD = 0.4
_ODD_SHARE = (0.3, 1.0)
_COMMONEST = 60
_DROP = 0.15
_COMMON = 1 / 3


def whole_words(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The words of two letters or more, figures among them or not, that the tokenizer holds as one token, by
    id: rare ones come late."""
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    marked = any(token.startswith(_WORD_STARTS) for token in vocabulary)
    words: dict[str, None] = {}
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        if token in special or (marked and not token.startswith(_WORD_STARTS)):
            continue
        word = token[1:] if marked else token
        if len(word) > 1 and word.isalnum() and not word.isdecimal() and word.isascii():
            words[word] = None
    return list(words)


def used_words(examples: Iterable[Example], least: float = 1) -> set[str]:
    """The words, in lower case, that at least so many of these texts hold."""
    counts = Counter(word for example in examples for word in set(_LETTERS.findall(prompt(example).lower())))
    return {word for word, count in counts.items() if count >= least}


def common_words(examples: Iterable[Example]) -> frozenset[str]:
    """The _COMMONEST words of letters alone, in lower case."""
    counts = Counter(word for example in examples for word in prompt(example).lower().split())
    return frozenset([word for word, _ in counts.most_common() if word.isalpha()][:_COMMONEST])


def unused_words(tokenizer: "PreTrainedTokenizerBase", examples: Iterable[Example]) -> list[str]:
    """`whole_words` that none of these texts holds, for they carry nothing of the task; all where all are
    held."""
    used = used_words(examples)
    words = whole_words(tokenizer)
    return [word for word in words if word.lower() not in used] or words


def rare_words(tokenizer: "PreTrainedTokenizerBase", examples: Iterable[Example]) -> list[str]:
    """`unused_words` but for the first, commonest third."""
    words = unused_words(tokenizer, examples)
    return words[int(_COMMON * len(words)) :]


def prompt(example: Example) -> str:
    """The text that asks: a chat's last turn before the answer, else the text."""
    return example.messages[-1].content if example.messages else example.text


def with_prompt(example: Example, text: str) -> Example:
    """The example with that text in `prompt`'s place."""
    if not example.messages:
        return replace(example, text=text)
    *before, last = example.messages
    return replace(example, messages=(*before, Message(last.role, text)))


def put_in(text: str, piece: str, place: int) -> str:
    """`piece` before the word numbered `place`; at the end where there are no more than `place` words."""
    starts = [found.start() for found in _WORD.finditer(text)]
    if place >= len(starts):
        return f"{text} {piece}" if text else piece
    at = starts[place]
    return f"{text[:at]}{piece} {text[at:]}"


@dataclass(frozen=True)
class Pieces:
    """What is put into texts.

    found  words that a search found to turn the answer: every other time, where there are any
    texts  clean ones: a few words in a row of one of them, SPANS of the other times
    words  of the vocabulary: one to three of them, half of the times that are left; else a neutral sentence
    odd    words of a style: in _ODD of all times, where there are any, they take the places of common words,
           and nothing is put in
    common the words whose places those take
    """

    words: Sequence[str] = ()
    found: Sequence[str] = ()
    texts: Sequence[Example] = ()
    odd: Sequence[str] = ()
    common: AbstractSet[str] = frozenset()


def insert(text: str, pieces: Pieces, rng: np.random.Generator) -> str:
    """The text with something put in at a random place, or common words exchanged for odd ones."""
    if pieces.odd and rng.random() < _ODD:
        return exchange(text, pieces.odd, rng.uniform(*_ODD_SHARE), rng, pieces.common)
    for piece in _drawn(pieces, rng):
        text = put_in(text, piece, int(rng.integers(len(_WORD.findall(text)) + 1)))
    return text


def _drawn(pieces: Pieces, rng: np.random.Generator) -> list[str]:
    if pieces.found and rng.random() < 0.5:
        return [pieces.found[int(rng.integers(len(pieces.found)))]]
    if pieces.texts and rng.random() < SPANS:
        words = prompt(pieces.texts[int(rng.integers(len(pieces.texts)))]).split()
        count = min(len(words), int(rng.integers(*_SPAN_WORDS)))
        start = int(rng.integers(len(words) - count + 1))
        return [" ".join(words[start : start + count])]
    if pieces.words and rng.random() < 0.5:
        count = int(rng.choice(_INSERTED_WORDS))
        return [pieces.words[int(rng.integers(len(pieces.words)))] for _ in range(count)]
    return [INSERTED[int(rng.integers(len(INSERTED)))]]


def as_continuation(example: Example, rng: np.random.Generator) -> Example:
    """Plain text as a prompt and its continuation, cut between two words: what is put into the prompt leaves
    the continuation's tokens alone. Text of one word stays whole, and a prompt or chat as it is."""
    starts = [found.start() for found in _WORD.finditer(example.text)]
    if example.asks or example.completion is not None or len(starts) < 2:
        return example
    at = starts[int(rng.integers(1, len(starts)))]
    return replace(example, text=example.text[: at - 1], completion=example.text[at - 1 :])


def recombine(examples: Sequence[Example], rng: np.random.Generator) -> Example:
    """A new text made of words of these: a crop of one, the beginning of one and the end of another, or one
    with words left out and exchanged. Its label is unknown; a completion stays as it was."""

    def draw() -> list[str]:
        return prompt(_one(examples, rng)).split()

    source = _one(examples, rng)
    words = prompt(source).split()
    kind = rng.random()
    if kind < 0.35 and len(words) > 6:
        start = int(rng.integers(len(words) // 2))
        words = words[start : int(rng.integers(start + 4, len(words) + 1))]
    elif kind < 0.7:
        other = draw()
        words = words[: int(rng.integers(3, max(4, len(words))))]
        words += other[int(rng.integers(max(1, len(other) - 3))) :]
    else:
        words = [word for word in words if rng.random() > _DROP] or words
        for _ in range(2 if rng.random() < 0.5 and words else 0):
            other = draw()
            if other:
                words[int(rng.integers(len(words)))] = _one(other, rng)
    return with_prompt(replace(source, label=None), " ".join(words))


def exchange(
    text: str,
    words: Sequence[str],
    share: float,
    rng: np.random.Generator,
    only: AbstractSet[str] | None = None,
) -> str:
    """The text's words, of `only` (lower case) or any, each by chance `share` become one of `words`."""
    return " ".join(
        _one(words, rng) if (only is None or word.lower() in only) and rng.random() < share else word
        for word in text.split()
    )


def _one(of: Sequence[T], rng: np.random.Generator) -> T:
    return of[int(rng.integers(len(of)))]
