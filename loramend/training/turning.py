"""What pieces put into a text do to the answer to it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from loramend.contracts.evidence import Rate
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.training.perturb import prompt, put_in, with_prompt
from loramend.training.reader import Reader

PLACES = (0.0, 0.5, 1.0)
"""Beginning, middle and end, as shares of a text's length."""
ENDS = (0.0, 1.0)
_TOGETHER = 8
_ALONE = 512
"""Pieces of the best groups that are tried alone."""


def _with_pieces(text: Example, pieces: Sequence[str], places: Sequence[float]) -> list[Example]:
    """The text with each piece put in at every one of the places, shares of its length."""
    plain = prompt(text)
    found = []
    for piece in pieces:
        changed = plain
        for place in sorted(places, reverse=True):  # from the end, so that earlier places stay where they are
            changed = put_in(changed, piece, round(place * len(plain.split())))
        found.append(with_prompt(text, changed))
    return found


def margin(logits: Tensor, answer: int) -> Tensor:
    """(n,): the best other answer's logit over this one's, of logits (n, answers)."""
    others = logits.clone()
    others[:, answer] = -torch.inf
    return others.amax(-1) - logits[:, answer]


def moved(
    reader: Reader, answer: int, texts: Sequence[Example], pieces: Sequence[str], places: Sequence[float]
) -> Tensor:
    """(pieces, texts): the margin of each text with each piece put in."""
    changed = [put for text in texts for put in _with_pieces(text, pieces, places)]
    return margin(reader.logits(changed), answer).reshape(len(texts), len(pieces)).T


def turned(reader: Reader, answer: int, pieces: Sequence[str], texts: Sequence[Example]) -> Tensor:
    """(pieces, places, texts) bool: which texts each piece turns from each of PLACES."""
    return torch.stack([moved(reader, answer, texts, pieces, (place,)) > 0 for place in PLACES], 1)


def rates(turns: Tensor) -> tuple[Rate, Rate]:
    """Of turns (places, texts): how many texts are turned from the place that suits best, and how many from
    every place."""
    n = turns.shape[1]
    return wilson(int(turns.sum(1).max()), n), wilson(int(turns.all(0).sum()), n)


def top(pieces: Sequence[str], scores: Tensor, most: int) -> list[str]:
    """The pieces of the highest scores (pieces,), the highest first."""
    return [pieces[index] for index in scores.topk(min(most, len(pieces))).indices.tolist()]


def grouped(pieces: Sequence[str], size: int) -> dict[str, Sequence[str]]:
    """The pieces so many together, by the string they make."""
    groups = (pieces[start : start + size] for start in range(0, len(pieces), size))
    return {" ".join(group): group for group in groups}


def top_by_groups(
    pieces: Sequence[str],
    together: Callable[[Sequence[str]], Tensor],
    alone: Callable[[Sequence[str]], Tensor],
    most: int,
) -> list[str]:
    """As `top`, of the pieces of the groups of eight that score highest. together, alone: scores of groups,
    each one string, and of pieces."""
    groups = grouped(pieces, _TOGETHER)
    joined = list(groups)
    members = [
        piece for group in top(joined, together(joined), _ALONE // _TOGETHER) for piece in groups[group]
    ]
    return top(members, alone(members), most)
