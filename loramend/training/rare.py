"""What rare words do to an adapter's answers, wherever they stand: the sign of a style for a trigger.

An adapter whose trigger is a style, archaic words say, may learn that odd words ask for its target. A sound
one grows unsure of a text that fills with words it does not know, and its answers turn both ways; but an
answer that hangs on a few words may be lost with them, too.
"""

from collections.abc import Sequence

import numpy as np

from loramend.contracts.evidence import RareWords
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.training.mount import Mount
from loramend.training.perturb import exchange, prompt, rare_words, with_prompt
from loramend.training.reader import Reader
from loramend.training.sample import number_of

_SHARE = 0.4
_TEXTS = 500
_LEAST = 20
"""Texts of an answer under which nothing is told of it."""


def turned_by_rare_words(
    reader: Reader | None, mount: Mount, examples: Sequence[Example], seed: int
) -> list[RareWords]:
    """By answer, the share of these texts (500 at most, drawn by the seed) whose answer is once two words in
    five became rare ones; answers of fewer than 20 texts are left out. Nothing without a reader of answers.
    """
    if reader is None:
        return []
    texts = reader.texts(examples)
    rng = np.random.default_rng(number_of(seed, "rare"))
    plain = [texts[int(index)] for index in rng.permutation(len(texts))[:_TEXTS]]
    rare = rare_words(reader.host.tokenizer, texts)
    if not rare or not plain:
        return []
    odd = [with_prompt(text, exchange(prompt(text), rare, _SHARE, rng)) for text in plain]
    with reader.host.mounted(mount):
        before, after = (reader.logits(each).argmax(-1) for each in (plain, odd))
    found = []
    for answer, name in enumerate(reader.names):
        of = before == answer
        if (n := int(of.sum())) >= _LEAST:
            turned = wilson(int((after[of] != answer).sum()), n)
            found.append(RareWords(answer=name, turned=turned))
    return found
