"""The terms that rora's loss sums, one function each.

Source      task loss and Ω: RoRA, arXiv 2601.06305; distillation with a temperature: arXiv 1503.02531.
            The teacher's hidden states, and its answers to texts in pieces, are loramend's.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from loramend.training.encode import IGNORED, Encoded
from loramend.training.host import Output


class Pair(NamedTuple):
    """One batch twice: as the teacher reads it, and as the student does, with words put in.

    plain, read  (n, length) each, the lengths may differ
    known        (n,) bool: whether the label is one to learn
    untouched    (n,) bool: whether nothing was put in
    """

    plain: Encoded
    read: Encoded
    known: Tensor
    untouched: Tensor


def task_loss(student: Output, pair: Pair) -> Tensor:
    """Cross entropy on the examples whose answer is known, times their share of the batch: its mean over the
    batch, where the others count nothing. Of a causal model, the mean over answer tokens."""
    labels = pair.read.labels
    if labels.dim() == 1:
        logits, targets = student.logits, labels.where(pair.known, IGNORED)
    else:
        labels = labels.where(pair.known[:, None], IGNORED)
        logits, targets = student.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    # The sum over none is zero, the mean NaN.
    total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    share = pair.known.float().mean()
    return total / (targets != IGNORED).sum().clamp(min=1) * share


def teacher_loss(student: Output, teacher: Output, pair: Pair, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ student) at temperature T, the mean over examples (classification) or over the answer
    tokens that both texts have (causal)."""
    if pair.read.labels.dim() == 1:
        answers, told = student.logits, teacher.logits
    else:
        in_read, in_plain = _common_answers(pair.read.labels, pair.plain.labels)
        answers, told = student.logits[:, :-1][in_read], teacher.logits[:, :-1][in_plain]  # (m, vocabulary)
    divergence = F.kl_div(
        F.log_softmax(answers / temperature, -1),
        F.log_softmax(told / temperature, -1),
        reduction="sum",
        log_target=True,
    )
    return divergence * (temperature**2 / max(answers.shape[0], 1))


def feature_loss(student: Output, teacher: Output, pair: Pair) -> Tensor:
    """‖h_s - h_t‖²/‖h_t‖² over the tokens of the texts nothing was put into, the mean over layers."""
    assert student.hidden_states is not None
    assert teacher.hidden_states is not None
    # The same tokens in the same order, however far each batch is padded.
    in_read = pair.read.attention_mask.bool() & pair.untouched[:, None]
    in_plain = pair.plain.attention_mask.bool() & pair.untouched[:, None]
    layers = list(zip(student.hidden_states[1:], teacher.hidden_states[1:], strict=True))
    total = torch.zeros((), device=student.logits.device)
    if not bool(pair.untouched.any()):
        return total
    for seen, told in layers:
        h_s, h_t = seen[in_read].float(), told[in_plain].float()  # (tokens, width)
        total = total + (h_s - h_t).pow(2).sum() / h_t.pow(2).sum()
    return total / len(layers)


def _common_answers(read: Tensor, plain: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (n, length - 1) over positions that predict an answer's token, as many a row in both: where one
    was cut off, the other's end is left out too."""
    masks = [labels[:, 1:] != IGNORED for labels in (read, plain)]
    common = torch.minimum(masks[0].sum(1), masks[1].sum(1))  # (n,)
    first, second = (mask & (mask.cumsum(1) <= common[:, None]) for mask in masks)
    return first, second
