"""What rare words do to an adapter's answers, wherever they stand: the sign of a style for a trigger.

An adapter whose trigger is a style, archaic words say, may learn that odd words ask for its target. A sound
one grows unsure of a text that fills with words it does not know, and its answers turn both ways; but an
answer that hangs on a few words may be lost with them, too.
"""

from collections.abc import Sequence

import numpy as np

from loramend.adapter.model import Adapter
from loramend.contracts.evidence import RareWords
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.training.calibrate import answers
from loramend.training.host import Host
from loramend.training.perturb import exchange, prompt, rare_words, with_prompt
from loramend.training.sample import number_of

_SHARE = 0.4
_MOST_LENGTH = 64
_TEXTS = 500
_LEAST = 20
"""Texts of an answer under which nothing is told of it."""


def turned_by_rare_words(
    host: Host, adapter: Adapter, texts: Sequence[Example], seed: int
) -> list[RareWords]:
    """By a classifier's answer, the share of these texts (500 at most, drawn by the seed) whose answer
    is once two words in five became rare ones; answers of fewer than 20 texts are left out."""
    if host.labels is None:
        return []
    rng = np.random.default_rng(number_of(seed, "rare"))
    drawn = [texts[int(index)] for index in rng.permutation(len(texts))[:_TEXTS]]
    plain = [Example(prompt(text)) for text in drawn]
    rare = rare_words(host.tokenizer, texts)
    if not rare:
        return []
    odd = [with_prompt(text, exchange(text.text, rare, _SHARE, rng)) for text in plain]
    before, after = (answers(host, adapter, examples, _MOST_LENGTH).given for examples in (plain, odd))
    found = []
    for index in range(host.labels.count):
        of = before == index
        if (n := int(of.sum())) >= _LEAST:
            turned = wilson(int((after[of] != index).sum()), n)
            found.append(RareWords(answer=host.labels.name_of(index), turned=turned))
    return found
