"""Texts mixed in pairs: what stands between two texts, and that draws come from the seed and number alone."""

import pytest
import torch
from torch import Tensor

from loramend.training.encode import Encoded
from loramend.training.host import Host
from loramend.training.mixup import mixed
from loramend.training.perturb import with_prompt
from tests.support_session import unlabelled
from tests.text_models import toy_examples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(host: Host) -> Encoded:
    texts = unlabelled(toy_examples(24, seed=3))
    lengths = (2 + n % 5 for n in range(len(texts)))
    cut = [with_prompt(of, " ".join(of.text.split()[:n])) for of, n in zip(texts, lengths, strict=True)]
    return host.collate(host.encode(cut, 64))


def pairs_of(own: Tensor, embedded: Tensor) -> list[tuple[int, float]]:
    """Of each row the other row and the own share that give it."""
    found = []
    for row in range(own.shape[0]):
        apart = own[row] - own  # (n, length, width)
        moved = own[row] - embedded[row]
        away = (moved * apart).sum((1, 2)) / apart.square().sum((1, 2)).clamp_min(1e-12)  # of each other row
        left = (moved - away[:, None, None] * apart).square().sum((1, 2))
        other = int(left.argmin())
        assert float(left[other]) < 1e-8
        found.append((other, 1.0 - float(away[other])))
    return found


def test_every_text_lies_between_itself_and_another(host: Host, plain: Encoded) -> None:
    batch, embedded = mixed(host, plain, 0, 5)
    found = pairs_of(host.embed(plain.input_ids), embedded)
    masks = plain.attention_mask
    for row, (other, own) in enumerate(found):
        assert -1e-4 <= own <= 1.0 + 1e-4
        if 1e-3 < own < 1 - 1e-3 and other != row:
            longer = torch.maximum(masks[row], masks[other])
            assert int(batch.attention_mask[row].sum()) == int(longer.sum())
    assert torch.equal(batch.input_ids, plain.input_ids)
    assert bool((batch.attention_mask >= plain.attention_mask).all())


def test_shares_lie_near_one_text_or_the_other(host: Host, plain: Encoded) -> None:
    """Beta(1/2, 1/2): two thirds of the draws lie in the outer halves of the two sides, not one half."""
    own = host.embed(plain.input_ids)
    shares = [share for number in range(40) for _, share in pairs_of(own, mixed(host, plain, 0, number)[1])]
    outer = sum(not 0.25 <= share <= 0.75 for share in shares) / len(shares)
    assert outer == pytest.approx(2 / 3, abs=0.06)


def test_draws_come_from_the_seed_and_the_number(host: Host, plain: Encoded) -> None:
    one = mixed(host, plain, 0, 1)[1]
    torch.manual_seed(7)
    assert one.equal(mixed(host, plain, 0, 1)[1])
    assert not one.equal(mixed(host, plain, 0, 2)[1])
    assert not one.equal(mixed(host, plain, 1, 1)[1])
