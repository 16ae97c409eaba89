"""Choosing how strong a repair is: the strongest candidate that clean accuracy allows, on held-out clean
text."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loramend.adapter.model import Adapter
from loramend.contracts.evidence import Calibration, Candidate, Rate
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.evaluation.words import counted
from loramend.training.encode import IGNORED, batches
from loramend.training.host import Host
from loramend.training.mount import adapter_mount
from loramend.training.session import Session

_BATCH = 64
_Z = 1.6448536269514722
"""The normal distribution's 95% point."""


@dataclass(frozen=True)
class Choice:
    """One candidate: how to make the adapter, and the settings that make it.

    trusted  taken unless the sample shows that it loses too much; others must not lose too much on the sample
             itself
    """

    make: Callable[[], Adapter]
    values: Mapping[str, float]
    trusted: bool


@dataclass(frozen=True)
class Answers:
    """What a model answers to some examples. given (n,): the class of each, or the likeliest token at each
    answer position of a causal model, the true answer before it. right (n,) bool: whether it is the example's
    own; False where that is unknown."""

    given: Tensor
    right: Tensor


@torch.no_grad()
def answers(host: Host, adapter: Adapter, examples: Sequence[Example], max_length: int) -> Answers:
    """The adapter's answers in the order of the examples."""
    items = host.encode(examples, max_length)
    given: list[Tensor] = [torch.empty(0)] * len(items)
    right = list(given)
    with host.mounted(adapter_mount(adapter)):
        for rows in batches(items, _BATCH):
            batch = host.collate([items[row] for row in rows])
            told = host.forward(batch, fast=True).logits.argmax(-1)
            labels = batch.labels
            if labels.dim() == 1:
                for row, answer, label in zip(rows, told.cpu(), labels.cpu(), strict=True):
                    given[row], right[row] = answer[None], (answer == label)[None]
                continue
            for place, row in enumerate(rows):
                at = labels[place, 1:] != IGNORED
                answer = told[place, :-1][at]
                given[row], right[row] = answer.cpu(), (answer == labels[place, 1:][at]).cpu()
    return Answers(torch.cat(given), torch.cat(right))


def calibrate(
    session: Session,
    candidates: Sequence[Choice],
    references: Sequence[Adapter],
    *,
    max_clean_drop: float,
    max_length: int,
) -> tuple[int, Calibration]:
    """Which candidate to take: the first whose accuracy on the held-out labelled examples stays within
    `max_clean_drop` points of the best reference's; the last where none does; the first where no labelled
    examples are held out.

    candidates  from the strongest repair to the mildest

    Of a causal model, answer tokens are counted, each given the true ones before it. Twenty examples cannot
    tell a loss of one point from none, and the given adapter may have been trained on them: a trusted
    candidate is out only where `loss_is_shown`. Another is out where it loses more on the sample, though one
    more wrong is let pass where one is more than `max_clean_drop` points; and where it answers the held-out
    texts as the given adapter does `max_clean_drop` points less often than the mildest candidate.
    """
    host, labelled, texts = session.host, session.held_out, session.held_out_texts
    best = _best(host, references, labelled, max_length)
    given = answers(host, session.given, texts, max_length) if texts else None
    rows = []
    for place, choice in enumerate(candidates):
        session.on_progress(
            Progress(phase="evaluate", done=place, total=len(candidates), unit="steps", detail="calibration")
        )
        adapter = choice.make()
        clean, within = None, False
        if best is not None:
            told = answers(host, adapter, labelled, max_length)
            clean = _rate(told.right)
            within = _within(told.right, best, max_clean_drop, trusted=choice.trusted)
        agreed = None
        if given is not None:
            agreed = _rate(answers(host, adapter, texts, max_length).given == given.given)
        rows.append(Candidate(values=dict(choice.values), clean=clean, agreement=agreed, within=within))
    rows = [
        row
        if choice.trusted or _agrees(row, rows[-1], max_clean_drop)
        else row.model_copy(update={"within": False})
        for row, choice in zip(rows, candidates, strict=True)
    ]
    fitting = [place for place, row in enumerate(rows) if row.within]
    chosen = fitting[0] if fitting else 0 if best is None else len(rows) - 1
    rows[chosen] = rows[chosen].model_copy(update={"chosen": True})
    reference = None if best is None else _rate(best)
    report = Calibration(
        held_out=len(labelled),
        reference=reference,
        max_clean_drop=max_clean_drop,
        candidates=rows,
        sentence=_sentence(
            rows[chosen], reference, max_clean_drop, "examples" if host.labels else "answer tokens"
        ),
    )
    return chosen, report


def loss_is_shown(before: Tensor, after: Tensor, points: float) -> bool:
    """Whether right answers `after` (n,) are shown to be more than `points` per cent of n fewer than
    `before`, on the same examples: whether the one-sided 95% bound on the difference of paired shares is
    over it."""
    lost = int((before & ~after).sum())
    won = int((after & ~before).sum())
    return lost - won - _Z * math.sqrt(lost + won) > points / 100 * len(before)


def _best(
    host: Host, references: Sequence[Adapter], labelled: Sequence[Example], max_length: int
) -> Tensor | None:
    """What the best of the references has right, (n,) bool."""
    if not labelled:
        return None
    rights = [answers(host, adapter, labelled, max_length).right for adapter in references]
    return max(rights, key=lambda right: int(right.sum()))


def _rate(hits: Tensor) -> Rate:
    return wilson(int(hits.sum()), len(hits))


def _within(right: Tensor, best: Tensor, max_clean_drop: float, *, trusted: bool) -> bool:
    if trusted:
        return not loss_is_shown(best, right, max_clean_drop)
    allowed = max_clean_drop / 100 * len(right)
    if 0 < allowed < 1:
        allowed = 1.0
    return int(best.sum()) - int(right.sum()) <= allowed


def _agrees(row: Candidate, mildest: Candidate, max_clean_drop: float) -> bool:
    if row.agreement is None or mildest.agreement is None:
        return True
    return row.agreement.rate >= mildest.agreement.rate - max_clean_drop / 100


def _sentence(chosen: Candidate, reference: Rate | None, max_clean_drop: float, units: str) -> str:
    """What calibration did, with the interval that its sample allows."""
    if chosen.clean is None or reference is None:
        return (
            "No labelled examples were held out, so clean accuracy could not be measured: the strongest "
            "candidate was taken."
        )
    clean, limit = chosen.clean, counted(max_clean_drop, "point")
    measured = (
        f"{clean.count} of {clean.n} held-out {units} right ({100 * clean.low:.1f} to "
        f"{100 * clean.high:.1f}% at 95%), {reference.count} by the reference"
    )
    if not chosen.within:
        return f"No candidate kept clean accuracy within {limit}: the mildest was taken, {measured}."
    if reference.count - clean.count <= max_clean_drop / 100 * clean.n:
        return f"The strongest candidate within {limit} of the reference was taken: {measured}."
    return (
        f"The strongest candidate was taken that does not show a loss of more than {limit}, which {clean.n} "
        f"{units} may be too few to show: {measured}."
    )
