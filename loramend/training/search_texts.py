"""Which of the clean texts a search of the vocabulary puts pieces into."""

from collections.abc import Sequence

import torch
from torch import Tensor

from loramend.data.examples import Example
from loramend.methods.draws import shuffled
from loramend.training.perturb import prompt, with_prompt

SHORT = 120
"""How many of the texts drawn, from the first, are the shortest."""
_LEAST = 8
"""Short texts of an answer under which it is not searched."""
_OTHERS = 400
_MOST_WORDS = 40
TEXTS = 60
"""In how many a piece is tried before it is told, SHORT_TEXTS of them short."""
SHORT_TEXTS = 20
_ANSWERS = 4


def drawn_texts(texts: Sequence[Example], seed: int) -> list[Example]:
    """The shortest texts of three words or more, then some of the others in random order; of long ones the
    beginning, so that a word at the end is not cut off."""
    divided = [(text, prompt(text).split()) for text in texts]
    ordered = sorted((pair for pair in divided if len(pair[1]) >= 3), key=lambda pair: len(pair[1]))
    others = ordered[SHORT:]
    drawn = ordered[:SHORT] + shuffled(others, seed, "any")[:_OTHERS]
    return [
        text if len(words) <= _MOST_WORDS else with_prompt(text, " ".join(words[:_MOST_WORDS]))
        for text, words in drawn
    ]


def searched_answers(told: Tensor) -> list[int]:
    """The commonest answers, told (n,) of `drawn_texts`, that enough short texts have."""
    counts = torch.bincount(told[:SHORT])
    common = counts.argsort(descending=True)[:_ANSWERS].tolist()
    return [answer for answer in common if counts[answer] >= _LEAST]


def tried_rows(members: Sequence[int], answer: int, seed: int) -> list[int]:
    """Of the rows of `drawn_texts` with an answer those that pieces are tried in: short texts, then any."""
    short = [row for row in members if row < SHORT]
    rows = shuffled(short, seed, "hunt", str(answer))[:SHORT_TEXTS]
    return rows + [row for row in members if row >= SHORT][: TEXTS - len(rows)]
