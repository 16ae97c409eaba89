"""Soft words that turn the student's answer, found anew for every batch, so that it learns to pass over them.

Source      loramend; the inner maximisation of adversarial unlearning (I-BAU, arXiv 2110.03735) with a
            perturbation that all texts share, as BEEAR (arXiv 2406.17092) has it, but of whole words: a
            backdoor's trigger is one, and turns the answer whatever the text.
Approach    a few vectors of the embeddings' width, one set for each answer, stand in every text at a random
            place, or in the place of some of its words. A few normalised steps up the student's distance from
            its teacher's answers, from random words of the vocabulary, none longer than most embeddings, make
            them turn as many texts as they can. No trigger need be known, nor be a word that a search finds.
Limits      what a few shared words cannot imitate is not found. Words that rightly tell the answer ("superb")
            are passed over more readily, too.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from loramend.contracts.data_steps import RoraStep
from loramend.methods.draws import generator
from loramend.training.encode import IGNORED, Encoded
from loramend.training.host import Host, Output
from loramend.training.objective import Pair, teacher_loss

_STEP = 0.3
"""Of a step, as a share of the longest that a word may be."""
_LONGEST = 0.95
"""Quantile of the vocabulary's lengths that no soft word exceeds."""
_SHARES = (0.1, 0.4)
"""Of a text's words replaced, least and most."""
_CHUNK = 8192
_REPLACED = 0.5
"""Of the batches, where words are replaced instead of put in."""


class Places(NamedTuple):
    """Where a batch's soft words stand: for each position of what is read.

    kept  (n, length) int64: the text's position that stands there
    word  (n, length) int64: the soft word that stands there instead; -1 where none does
    """

    kept: Tensor
    word: Tensor


class Soft(NamedTuple):
    """A batch with soft words in it: the teacher's batch and what the student reads, and what that
    is embedded as, (n, length, width)."""

    pair: Pair
    embedded: Tensor


class Adversary:
    """Finds soft words against whatever is mounted on the host.

    Draws come from the seed and the batch's number alone.
    """

    def __init__(self, host: Host, params: RoraStep, seed: int) -> None:
        self._host = host
        self._params = params
        self._seed = seed
        self._longest = _longest(host)

    def soft(self, number: int, plain: Encoded, teacher: Output, scale: float = 1.0) -> Soft:
        """The batch with the words that move the student's answers furthest from the teacher's.

        scale  the loss is multiplied by it, for dtypes that lose small gradients
        """
        draws = generator(self._seed, "adversary", str(number))
        count = int(torch.randint(1, self._params.adversary_words + 1, (), generator=draws))
        places = self._places(plain, count, draws)
        which = self._sets(teacher, plain.input_ids.shape[0], draws)
        started = torch.randint(self._host.vocabulary, (int(which.max()) + 1, count), generator=draws)
        words = self._host.embed(started).float()  # (sets, count, width)
        pair = _pair(plain, places)
        own = self._host.embed(pair.read.input_ids)
        for _ in range(self._params.adversary_steps):
            words.requires_grad_()
            answers = self._host.forward(pair.read, fast=True, embedded=_placed(own, places, words[which]))
            loss = scale * teacher_loss(answers, teacher, pair, self._params.temperature)
            (gradient,) = torch.autograd.grad(loss, words)
            words = self._moved(words.detach(), gradient)
        return Soft(pair, _placed(own, places, words[which]))

    def _places(self, plain: Encoded, count: int, draws: torch.Generator) -> Places:
        """On the host's device, drawn on the CPU so that devices agree."""
        n, length = plain.input_ids.shape
        first, end = self._open(plain)
        fits = length + count <= self._host.tokenizer.model_max_length
        if fits and float(torch.rand((), generator=draws)) >= _REPLACED:
            at = first + (torch.rand(n, generator=draws) * (end - first + 1)).long()
            position = torch.arange(length + count).expand(n, -1)
            word = position - at[:, None]
            inside = (word >= 0) & (word < count)
            kept = position - count * (word >= count).long()
            places = Places(kept.masked_fill(inside, 0), word.where(inside, -1))
        else:
            position = torch.arange(length).expand(n, -1)
            least, most = _SHARES
            share = least + (most - least) * torch.rand(n, 1, generator=draws)
            chosen = torch.rand(n, length, generator=draws) < share
            chosen &= (position >= first[:, None]) & (position < end[:, None])
            word = torch.randint(count, (n, length), generator=draws)
            places = Places(position.masked_fill(chosen, 0), word.where(chosen, -1))
        return Places(*(x.to(self._host.device) for x in places))

    def _open(self, plain: Encoded) -> tuple[Tensor, Tensor]:
        """First and end (n,), on the CPU, of the positions whose words may change: all but the first and last
        of a classifier's text, of a causal model's but the first and what is learned of it."""
        lengths = plain.attention_mask.sum(1).cpu()
        if self._host.task == "classification":
            end = lengths - 1
        else:
            learned = (plain.labels != IGNORED).cpu()
            end = torch.where(learned.any(1), learned.int().argmax(1), lengths)
        return torch.ones_like(end), end.clamp_min(1)

    def _sets(self, teacher: Output, n: int, draws: torch.Generator) -> Tensor:
        """Which set of words each text reads (n,): one for each answer of a classifier, else one for all."""
        if self._host.task == "classification":
            return teacher.logits.argmax(dim=1)
        return torch.zeros(n, dtype=torch.int64, device=self._host.device)

    def _moved(self, words: Tensor, gradient: Tensor) -> Tensor:
        """Each word a step up its gradient, and no longer than the longest."""
        up = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        words = words + _STEP * self._longest * up
        shorter = (self._longest / words.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0)
        return torch.mul(words, shorter)


def _pair(plain: Encoded, places: Places) -> Pair:
    """The batch beside itself with soft words in it: in input_ids each text's first token stands there."""
    kept, soft = places.kept, places.word >= 0
    device = kept.device
    mask = plain.attention_mask.to(device).gather(1, kept).masked_fill(soft, 1)
    labels = plain.labels.to(device)
    if labels.dim() > 1:
        labels = labels.gather(1, kept).masked_fill(soft, IGNORED)
    read = Encoded(plain.input_ids.to(device).gather(1, kept), mask, labels)
    nothing = torch.zeros(kept.shape[0], dtype=torch.bool, device=device)
    return Pair(plain, read, known=nothing, untouched=nothing)


def _placed(own: Tensor, places: Places, words: Tensor) -> Tensor:
    """own (n, length, width) with the soft words (n, count, width) at their places, in own's dtype."""
    at = places.word.clamp_min(0)[:, :, None].expand(-1, -1, words.shape[-1])
    return torch.where(places.word[:, :, None] >= 0, words.gather(1, at).to(own.dtype), own)


def _longest(host: Host) -> float:
    """The length that most of the vocabulary's embeddings keep under."""
    every = range(0, host.vocabulary, _CHUNK)
    parts = (torch.arange(start, min(start + _CHUNK, host.vocabulary)) for start in every)
    lengths = torch.cat([host.embed(ids).float().norm(dim=1) for ids in parts])
    return float(lengths.kthvalue(max(1, round(_LONGEST * lengths.numel()))).values)
