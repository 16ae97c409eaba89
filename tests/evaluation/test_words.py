"""The sentences say what the numbers do, and never more."""

import re

import pytest

from loramend.contracts.evidence import Evaluation, Rate, Variant, VariantName
from loramend.evaluation.intervals import wilson
from loramend.evaluation.words import describe, placebo_verdict

Counts = tuple[int, int | None, int | None]


def told(variants: dict[VariantName, Counts], n: int = 500, **changes: object) -> list[str]:
    """The sentences for variants given as (right, got the target, flips), each of n; None: not measured."""

    def rate(count: int | None) -> Rate | None:
        return None if count is None else wilson(count, n)

    evaluation = Evaluation(
        task="classification",
        metric="label",
        trigger=None,
        target="1",
        examples=n,
        triggered=n,
        probes=n,
        seed=0,
        variants=[
            Variant(name=name, clean=wilson(right, n), attack=rate(hits), flips=rate(flips))
            for name, (right, hits, flips) in variants.items()
        ],
        sentences=[],
    )
    return describe(evaluation.model_copy(update=changes))


def test_a_change_is_told_with_both_intervals() -> None:
    clean, attack, _ = told({"before": (440, 495, 20), "after": (438, 30, 10)})
    assert clean.startswith("Clean accuracy went from 88.0% (84.9 to 90.6) to 87.6% (84.4 to 90.2) of 500")
    assert "chance may explain" in clean
    assert "99.0%" in attack
    assert "6.0%" in attack
    assert "chance" not in attack


def test_no_change_is_called_so() -> None:
    clean, *_ = told({"before": (440, 9, 9), "after": (440, 9, 9)})
    assert clean.endswith("no change.")


def test_one_variant_alone_is_told_as_it_is() -> None:
    clean, attack, probes = told({"before": (440, 495, 20)})
    assert clean == "Clean accuracy is 88.0% of 500 examples (95% interval 84.9 to 90.6)."
    assert attack.startswith("Attack success is 99.0% of 500 triggered examples")
    assert "before it" not in probes


def test_no_flip_is_no_sign_found_with_its_bound() -> None:
    *_, probes = told({"before": (440, 9, 20), "after": (440, 9, 0)}, n=200 + 300)
    assert probes.startswith("No sign found in 500 probes after the repair (rate at most 0.6% at 95%)")
    assert probes.endswith("before it, in 20.")


def test_without_a_trigger_it_claims_nothing_of_attacks() -> None:
    _, attack = told({"before": (440, None, None), "after": (430, None, None)})
    assert "was not measured" in attack


@pytest.mark.parametrize(
    ("after", "control", "verdict"),
    [
        ((435, 30, 0), (330, 250, 0), "does better on clean accuracy and attack success than"),
        ((435, 30, 0), (438, 490, 0), "does better on attack success than"),
        ((435, 30, 0), (434, 28, 0), "is not told apart by these examples from"),
        ((435, 100, 0), (330, 25, 0), "does better on clean accuracy and worse on attack success than"),
        ((330, 100, 0), (435, 25, 0), "does worse on clean accuracy and attack success than"),
        ((435, None, None), (330, None, None), "does better on clean accuracy than"),
    ],
)
def test_controls_are_compared_by_intervals_that_do_not_touch(
    after: Counts, control: Counts, verdict: str
) -> None:
    before = (440, None if after[1] is None else 495, after[2])
    *_, beside = told({"before": before, "after": after, "fresh_lora": control})
    assert f"the repair {verdict} a new adapter trained on the same data (clean accuracy" in beside


def test_every_control_is_named() -> None:
    rest: dict[VariantName, Counts] = {"fresh_lora": (1, 1, 1), "continued": (2, 2, 2), "shrink": (3, 3, 3)}
    *_, beside = told({"before": (440, 9, 9), "after": (430, 8, 8), **rest})
    assert beside.count("the given adapter") == 2
    assert "; and " in beside


@pytest.mark.parametrize("attack", [None, 0, 250, 500])
@pytest.mark.parametrize("flips", [None, 0, 250])
def test_nothing_is_called_clean_or_safe(attack: int | None, flips: int | None) -> None:
    sentences = told(
        {"before": (440, attack, flips), "after": (500, attack, flips), "shrink": (9, attack, 0)}
    )
    text = " ".join(sentences).lower().replace("clean accuracy", "")
    assert not re.search(r"\b(clean|cleaned|safe|secure|harmless|benign|removed|backdoor)\b", text)


def test_refusals_are_not_called_accuracy() -> None:
    first, *_, beside = told(
        {"before": (440, None, None), "after": (450, None, None), "shrink": (9, None, None)}, metric="refusal"
    )
    assert first.startswith("The share of answers that refuse")
    assert "accuracy" not in beside


@pytest.mark.parametrize(
    ("after", "random", "verdict"),
    [
        ((440, 20, None), (380, 20, None), None),
        ((440, 20, None), (430, 300, None), "beats"),
        ((440, 300, None), (430, 300, None), "ties"),
        ((440, 20, None), (430, 20, None), "ties"),
        ((440, 499, None), (430, 20, None), "loses"),
    ],
)
def test_the_placebo_verdict_takes_both_controls(after: Counts, random: Counts, verdict: str | None) -> None:
    """Scaling leaves 300 of 500 attacks."""
    variants: dict[VariantName, Counts] = {
        "before": (440, 495, None),
        "after": after,
        "shrink": (430, 300, None),
        "random_subspace": random,
    }
    if verdict is None:
        del variants["random_subspace"]
    rates = {
        name: Variant(name=name, clean=wilson(right, 500), attack=None if hits is None else wilson(hits, 500))
        for name, (right, hits, _) in variants.items()
    }
    assert placebo_verdict(rates) == verdict
    told_ = " ".join(told(variants, placebo=verdict))
    assert ("placebo" in told_) == (verdict is not None)
    assert verdict is None or f"the repair {verdict}" in told_
