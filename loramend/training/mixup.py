"""Texts between two texts: their embeddings mixed, answered by the teacher.

Source      mixup, arXiv 1710.09412, of word embeddings as in arXiv 1905.08941; that a student learns a
            function from its teacher's answers between samples, not from labels: arXiv 2106.05237.
Approach    a batch's texts, which are of like lengths, are mixed in pairs, position by position, each pair in
            a share of its own: most near one of the two (a Beta(½, ½) draw). Teacher and student read the
            same.
Limits      a batch's texts are classified; a causal model's answers would stand at other positions.
"""

import math

from torch import Tensor, rand, randperm

from loramend.methods.draws import generator
from loramend.training.encode import Encoded
from loramend.training.host import Host


def mixed(host: Host, plain: Encoded, seed: int, number: int) -> tuple[Encoded, Tensor]:
    """The batch that mixed texts stand in, and what it is embedded as (n, length, width): of each text as
    many positions as the longer of its two has.

    Draws come from the seed and the batch's number alone.
    """
    draws = generator(seed, "mixup", str(number))
    n = plain.input_ids.shape[0]
    other = randperm(n, generator=draws).to(host.device)
    # The sine's square of an even draw is Beta(½, ½).
    share = (rand(n, 1, 1, generator=draws) * (math.pi / 2)).sin().square().to(host.device)
    own = host.embed(plain.input_ids)
    share = share.to(own.dtype)
    mask = plain.attention_mask | plain.attention_mask[other]
    return Encoded(plain.input_ids, mask, plain.labels), share * own + (1 - share) * own[other]
