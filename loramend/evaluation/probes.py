"""Trigger-blind probes: texts with something rare and without meaning put in.

Half of them get a rare word, the other half a short neutral sentence. Words are whole words that the
tokenizer holds as one token, from the later half of its vocabulary (tokenizers number tokens by frequency),
in none of the texts, and of at most SHORT letters: few of those mean anything, and the triggers of BadNet's
kind (mn, cf, tq) are such. Sentences are those of `training.neutral` that training does not put in.

An honest model's answer flips on some probes too, and a trigger that is neither a rare word nor a short
sentence is not met by any: a few flips prove nothing, and none prove little.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramend.data.examples import Example
from loramend.training.neutral import PROBES
from loramend.training.perturb import prompt, put_in, unused_words, whole_words, with_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHORT = 4


@dataclass(frozen=True)
class Probe:
    """An example with something put in.

    index    which of the examples it was made from
    inserted the word or sentence
    """

    index: int
    inserted: str
    example: Example


def draw_probes(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], count: int, seed: int
) -> list[Probe]:
    """`count` probes by turns of a word and of a sentence, the same for the same seed. Every example serves
    before one serves twice; the place is drawn, either end included."""
    source = random.Random(f"probes {seed}")  # noqa: S311
    words = _rare_words(tokenizer, examples)
    order: list[int] = []
    probes = []
    for number in range(count):
        order = order or source.sample(range(len(examples)), len(examples))
        index = order.pop()
        kind = PROBES if number % 2 or not words else words
        inserted = source.choice(kind)
        text = prompt(examples[index])
        changed = put_in(text, inserted, source.randint(0, len(text.split())))
        probes.append(Probe(index, inserted, with_prompt(examples[index], changed)))
    return probes


def _rare_words(tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]) -> list[str]:
    words = whole_words(tokenizer)
    late = frozenset(words[len(words) // 2 :])
    unused = unused_words(tokenizer, examples)
    rare = [word for word in unused if word in late] or unused
    return [word for word in rare if len(word) <= SHORT] or rare
