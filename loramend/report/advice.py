"""What to do after a repair or an inspection, as far as its numbers say."""

from collections.abc import Iterator

from loramend.contracts.evidence import Variant
from loramend.contracts.report import Report
from loramend.evaluation.intervals import below
from loramend.evaluation.words import WORTH_A_LOOK
from loramend.report.words import WORDS_TOLD, named, right, share_of, trains_heads, unchanged, variant


def advice(report: Report) -> list[str]:
    """What to do, the most pressing first; what the repair cost stands beside it."""
    first, *others = _advice(report)
    return [" ".join([first, *_cost(report)]), *others]


def _cost(report: Report) -> list[str]:
    told = report.evaluation
    before, after = variant(told, "before"), variant(told, "after")
    if told is None or before is None or after is None or not below(after.clean, before.clean):
        return []
    fell = f"{right(told)} fell from {before.clean.rate:.1%} to {after.clean.rate:.1%}"
    return [f"Weigh what it costs: {fell}, beyond chance."]


def _advice(report: Report) -> Iterator[str]:
    told = report.evaluation
    after = variant(told, "after")
    if report.kind == "inspect":
        yield (
            "If its maker is not trusted, repair it against its base model, with a hundred examples you "
            "trust if there are any, and measure it before use."
        )
    elif unchanged(report):
        yield (
            "Do not count this as repaired: see under Modules why each step left them alone, then choose "
            "other steps or settings."
        )
    elif told is not None and told.placebo == "loses":
        yield "Do not use this repair for its method: plain shrinking or random directions did better here."
    elif after is not None and (left := _left(variant(told, "before"), after)):
        yield left
    elif told is not None and told.placebo == "ties":
        yield (
            "Do not credit the method: changes of the same size did as well here. Repair with text you trust "
            "(rora) or measure on more examples."
        )
    elif told is None:
        yield (
            "Measure before use: run loramend evaluate on labelled examples, with the suspected trigger if "
            "one is known."
        )
    elif told.trigger is None:
        yield "Before use, test it on your own task, and with any trigger you suspect: none was given here."
    else:
        yield "Before use, test it on your own task and with other triggers: this holds for the one measured."
    if words := [f'"{word.word}"' for trained in report.training for word in trained.found]:
        yield (
            f"Look at the words found ({named(words, WORDS_TOLD)}) and measure a suspicious one with "
            "loramend evaluate --trigger word:WORD."
        )
    if report.threat == "poisoned_base":
        yield "Replace the base model where you can: no adapter changes what is in it."
    if report.adapter.passed_through and report.kind == "repair":
        kept = "task heads aside, not repaired" if trains_heads(report.steps) else "not repaired"
        yield (
            f"Look into the {len(report.adapter.passed_through)} tensors outside the LoRA matrices that were "
            f"copied: they are {kept}."
        )


def _left(before: Variant | None, after: Variant) -> str | None:
    """What to do about a trigger that still gets the target more often than is worth no look."""
    if after.attack is None or after.attack.low <= WORTH_A_LOOK:
        return None
    if before is not None and before.attack is not None and below(after.attack, before.attack):
        return (
            f"Check what is left: with the trigger {share_of(after.attack)} still get the target; some of "
            "that may be ordinary error."
        )
    return (
        f"Do not rely on it: the trigger still gets the target on {share_of(after.attack)}. Repair with "
        "examples you trust, or with more of them, or a stronger setting."
    )
