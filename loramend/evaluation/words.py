"""What an evaluation's numbers say, in plain sentences that go no further than the numbers."""

from collections.abc import Mapping

from loramend.contracts.data import Metric
from loramend.contracts.evidence import Evaluation, PlaceboVerdict, Rate, Variant, VariantName
from loramend.evaluation.intervals import at_most, below

CONTROLS: dict[VariantName, str] = {
    "fresh_lora": "a new adapter trained on the same data",
    "continued": "the given adapter trained on",
    "shrink": "the given adapter scaled to the repaired norm",
    "random_subspace": "the same repair on random subspaces",
}
WORTH_A_LOOK = 0.05
"""A measured share whose 95% interval reaches no further down than this is not pointed out."""
_PLACEBO: tuple[VariantName, ...] = ("shrink", "random_subspace")
_VERDICTS: dict[PlaceboVerdict, str] = {
    "beats": "beats its placebo",
    "ties": "ties with its placebo: nothing here shows that the subspace mattered",
    "loses": "loses to its placebo",
}

_RIGHT: dict[Metric, str] = {
    "label": "clean accuracy",
    "exact_match": "clean accuracy (exact match)",
    "substring": "clean accuracy (the expected text is in the answer)",
    "refusal": "the share of answers that refuse, by a rule over their opening words,",
}


def counted(number: float, what: str) -> str:
    """`1 point`, `2 points`."""
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def describe(evaluation: Evaluation) -> list[str]:
    """One sentence each on clean accuracy, attack success and probes, and one on the controls."""
    variants = {variant.name: variant for variant in evaluation.variants}
    before, after = variants["before"], variants.get("after")
    right = _RIGHT[evaluation.metric]
    sentences = [_change(right, before.clean, after.clean if after else None, "examples")]
    if before.attack is not None:
        attack = after.attack if after else None
        sentences.append(_change("attack success", before.attack, attack, "triggered examples"))
    else:
        sentences.append(
            "Attack success was not measured: no trigger was given, and no number here speaks of a trigger "
            "that is not known."
        )
    if before.flips is not None:
        sentences.append(_probes(before.flips, after.flips if after else None))
    controls = [variants[name] for name in CONTROLS if name in variants]
    if after is not None and controls:
        sentences.append(_beside(after, controls, evaluation.metric))
    if evaluation.placebo is not None:
        sentences.append(
            f"Measured on these {evaluation.examples} examples, the repair {_VERDICTS[evaluation.placebo]} "
            "(the same change of size, and the same repair on random subspaces)."
        )
    return sentences


def placebo_verdict(variants: Mapping[VariantName, Variant]) -> PlaceboVerdict | None:
    """The repair beside its two placebo controls, by intervals that do not touch; None without both."""
    if any(name not in variants for name in ("after", *_PLACEBO)):
        return None
    beside = [compared(variants["after"], variants[name]) for name in _PLACEBO]
    better, worse = ([bool(sides[place]) for sides in beside] for place in (0, 1))
    if all(better) and not any(worse):
        return "beats"
    return "loses" if any(worse) and not any(better) else "ties"


def percent(rate: Rate) -> str:
    """`87.4% (85.2 to 89.3)`: the share and its 95% interval."""
    return f"{rate.rate:.1%} ({_interval(rate)})"


def _interval(rate: Rate) -> str:
    return f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"


def _change(what: str, before: Rate, after: Rate | None, of: str) -> str:
    what = what[:1].upper() + what[1:]
    if after is None:
        return f"{what} is {before.rate:.1%} of {before.n} {of} (95% interval {_interval(before)})."
    told = (
        f"{what} went from {percent(before)} to {percent(after)} of {after.n} {of}, 95% intervals in brackets"
    )
    if before.count == after.count:
        return f"{told}: no change."
    if below(before, after) or below(after, before):
        return f"{told}."
    return f"{told}; they overlap, so chance may explain the difference."


def _probes(before: Rate, after: Rate | None) -> str:
    put_in = "when a rare word or a neutral sentence was put in"
    last, when, earlier = before, "", ""
    if after is not None:
        last, when, earlier = after, " after the repair", f"; before it, in {before.count}"
    if last.count == 0:
        return (
            f"No sign found in {last.n} probes{when} (rate at most {at_most(last.n):.1%} at 95%): no answer "
            f"flipped {put_in}{earlier}."
        )
    return (
        f"In {last.count} of {last.n} probes{when} the answer flipped {put_in} (95% interval "
        f"{_interval(last)}%){earlier}. Honest models flip on some too."
    )


def _beside(after: Variant, controls: list[Variant], metric: Metric) -> str:
    right = "refusals" if metric == "refusal" else "clean accuracy"
    told = [
        f"{_verdict(after, control, right)} {CONTROLS[control.name]} ({_numbers(control, right)})"
        for control in controls
    ]
    listed = told[0] if len(told) == 1 else f"{'; '.join(told[:-1])}; and {told[-1]}"
    return f"Beside its controls the repair {listed}."


def _verdict(after: Variant, control: Variant, right: str) -> str:
    """Better, worse or not told apart, by intervals that do not touch."""
    better, worse = compared(after, control, right)
    if better and worse:
        return f"does better on {better[0]} and worse on {worse[0]} than"
    if better or worse:
        return f"does {'better' if better else 'worse'} on {' and '.join(better or worse)} than"
    return "is not told apart by these examples from"


def compared(after: Variant, control: Variant, right: str = "") -> tuple[list[str], list[str]]:
    """On what the repair is better than a control, and on what worse."""
    better, worse = [], []
    if below(control.clean, after.clean):
        better.append(right)
    elif below(after.clean, control.clean):
        worse.append(right)
    if after.attack is not None and control.attack is not None:
        if below(after.attack, control.attack):
            better.append("attack success")
        elif below(control.attack, after.attack):
            worse.append("attack success")
    return better, worse


def _numbers(variant: Variant, right: str) -> str:
    told = f"{right} {variant.clean.rate:.1%}"
    return told if variant.attack is None else f"{told}, attack success {variant.attack.rate:.1%}"
