"""What is trained on and what is held out, so that no text is on both sides."""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from loramend.contracts.errors import DataError
from loramend.data.examples import Corpus, Dataset, Example

_MAX_HELD_OUT_TEXTS = 500  # unlabelled ones: a share of as many has an interval of at most ±4.4 points

Key = tuple[object, ...]


class Split(NamedTuple):
    """A corpus in parts.

    labelled        clean examples with their answers, to train on
    held_out        labelled examples kept for calibration
    texts           all clean examples to learn from, `labelled` first
    held_out_texts  clean texts kept for calibration, `held_out` first
    """

    labelled: tuple[Example, ...]
    held_out: tuple[Example, ...]
    texts: tuple[Example, ...]
    held_out_texts: tuple[Example, ...]


def split(corpus: Corpus, seed: int) -> Split:
    """Divide the clean and unlabelled text; the same corpus and seed give the same parts.

    `validation` is held out where it was given; otherwise `validation_share` of the clean examples, of every
    label alike, and of the unlabelled ones (at most 500). Neither a text that is held out nor one that the
    evaluation is measured on is trained on, though the files share it; of copies one is held out and none
    trained on. Calibration keeps off the evaluation's texts too.

    Raises DataError `data_invalid` where clean text was given and none is left to train on, or validation and
    none is left of it.
    """
    measured = _keys(_examples(corpus.evaluation) + _examples(corpus.triggered))
    clean = _without(_examples(corpus.clean), measured)
    unlabelled = _without(_examples(corpus.unlabelled), measured)
    if corpus.validation is not None:
        held_out = _without(corpus.validation.examples, measured)
        held_out_texts = held_out
        if not held_out:
            raise DataError(
                "data_invalid",
                "All validation examples are in the evaluation data too: give others, or leave validation "
                "out, and a share of the clean ones is held back.",
                where=corpus.validation.name,
            )
    else:
        rng = random.Random(f"split {seed}")  # noqa: S311 - to be repeated, not to be secret
        held_out = _draw(clean, corpus.validation_share, rng)
        others = _without(unlabelled, _keys(clean))
        held_out_texts = (*held_out, *_draw(others, corpus.validation_share, rng, _MAX_HELD_OUT_TEXTS))
    labelled = _without(clean, _keys(held_out_texts))
    texts = labelled + _without(unlabelled, _keys(held_out_texts) | _keys(labelled))
    given = corpus.clean or corpus.unlabelled
    if given is not None and not texts:
        raise DataError(
            "data_invalid",
            "No clean text is left to learn from: all of it is in the validation or evaluation data too. "
            "Give text that is in neither.",
            where=given.name,
        )
    return Split(labelled, held_out, texts, held_out_texts)


def _draw(
    examples: Sequence[Example], share: float, rng: random.Random, most: int | None = None
) -> tuple[Example, ...]:
    """A share of the distinct examples in their own order, at least one and not all; none of a single one."""
    distinct = list({_key(example): example for example in examples}.values())
    count = min(max(round(share * len(distinct)), 1), len(distinct) - 1)
    if most is not None:
        count = min(count, most)
    if count < 1:
        return ()
    order = list(range(len(distinct)))
    rng.shuffle(order)
    order.sort(key=lambda index: str(distinct[index].label))
    # Evenly spaced in the order of labels: each label gives its share.
    picked = {order[int((place + 0.5) * len(order) / count)] for place in range(count)}
    return tuple(example for index, example in enumerate(distinct) if index in picked)


def _examples(dataset: Dataset | None) -> tuple[Example, ...]:
    return dataset.examples if dataset is not None else ()


def _without(examples: Iterable[Example], keys: frozenset[Key]) -> tuple[Example, ...]:
    return tuple(example for example in examples if _key(example) not in keys)


def _keys(examples: Iterable[Example]) -> frozenset[Key]:
    return frozenset(map(_key, examples))


def _key(example: Example) -> Key:
    """What the model reads; answers may differ between files."""
    return example.text, example.messages
