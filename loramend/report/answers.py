"""What a report says first: five questions with their answers, and three facts.

Text, page, command line, model card and SARIF all say it in these words, which claim no more than the
report's numbers.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from loramend.contracts.data_steps import CleanSubspaceStep
from loramend.contracts.evidence import Evaluation, FoundWord, Rate, TrainingReport
from loramend.contracts.report import PlaceboComparison, Report
from loramend.evaluation.intervals import at_most, below
from loramend.evaluation.words import CONTROLS, compared
from loramend.report.advice import advice
from loramend.report.words import (
    BY_WEIGHTS,
    FROM_ONE_PLACE,
    NOT_MEASURED,
    NOTHING_TO_MEASURE_ON,
    WORDS_TOLD,
    asks_for_an_answer,
    count_changed,
    describe_adapter,
    describe_contrast,
    describe_rare,
    describe_search,
    describe_training,
    modules,
    moved,
    named,
    right,
    share_of,
    strongest,
    unchanged,
    variant,
)

# What the verdicts on a repair beside its placebo are called, by behaviour.
_BY_BEHAVIOUR = {
    "beats": "beats its placebo",
    "ties": "ties with its placebo",
    "loses": "loses to its placebo",
}


class Answer(NamedTuple):
    """A question, its answer in a sentence or two, and what else there is to say to it."""

    question: str
    lead: str
    details: list[str]


class Fact(NamedTuple):
    """One of the three facts to take away."""

    name: str
    value: str
    note: str


def answers(report: Report) -> list[Answer]:
    """The five answers, in the order in which they are read."""
    return [_suspected(report), _done(report), _changed(report), _sure(report), _next(report)]


def with_summary(report: Report) -> Report:
    """The report with the answers as its `summary`, one after the other."""
    told = [sentence for answer in answers(report) for sentence in (answer.lead, *answer.details)]
    return report.model_copy(update={"summary": told})


def lines(report: Report) -> list[str]:
    """Answers, caveats and facts as lines of text: each question before its answer, what belongs to a line
    indented below it, and last, where a terminal shows it first, what to take away."""
    told = []
    for answer in answers(report):
        told += [f"{answer.question}: {answer.lead}", *_below(answer.details)]
    if report.caveats:
        told += ["Before you lean on these numbers:", *_below(report.caveats)]
    return [*told, "In short:", *_below([f"{name}: {value} ({note})" for name, value, note in facts(report)])]


def _below(sentences: Iterable[str]) -> list[str]:
    return [f"  {sentence}" for sentence in sentences]


def facts(report: Report) -> list[Fact]:
    """Three facts: what changed, how the adapter behaves, and how that compares with doing less."""
    if report.kind == "inspect":
        first = Fact("Read", f"{modules(report.totals.modules)}", "nothing was changed")
        verdict = Fact("Verdict", "none", "weights alone cannot show a backdoor")
        return [first, _behaviour_fact(report), verdict]
    if unchanged(report):
        first = Fact("Changed", "nothing", f"of {modules(report.totals.modules)}")
    else:
        how_far = moved(report.totals.distance or 0.0)
        value = f"{count_changed(report)} of {modules(report.totals.modules)}"
        first = Fact("Changed", value, f"the new update differs from the old by {how_far} its norm")
    return [first, _behaviour_fact(report), _beside_fact(report)]


def _suspected(report: Report) -> Answer:
    premise = {
        "poisoned_adapter": "The request suspects the adapter and trusts the base model.",
        "poisoned_base": "The request suspects the base model; the adapter it trusts, which may be too weak "
        "to outweigh a backdoor there.",
        None: "No threat was named, and nothing here is a verdict on the adapter.",
    }[report.threat]
    before = variant(report.evaluation, "before")
    searched = [trained for trained in report.training if trained.searched]
    found = [word for trained in searched for word in trained.found]
    details = [describe_search(trained) for trained in searched]
    details += [line for trained in report.training for line in describe_rare(trained)]
    details += [line for trained in report.training for line in describe_contrast(trained)]
    if report.triage is not None and report.triage.bank is not None:
        details.append(report.triage.sentences[0])
    if before is not None and before.attack is not None:
        when = "" if report.kind == "inspect" else " before the repair"
        shown = f"With the trigger in, the model gave the target on {share_of(before.attack)}{when}."
        if found:
            details.insert(0, _turned(found))
    elif found:
        shown = _turned(found)
    elif any(trained.contrast for trained in searched):
        shown = _read_differently(searched)
    elif report.threat is None:
        shown = "Weights alone were measured; they cannot show whether a trigger works."
    else:
        shown = "Nothing was measured that shows it."
        if searched:
            shown = "The search of the vocabulary found no word that shows it."
        if any(map(asks_for_an_answer, searched)):
            shown = (
                "Rare words turn more than half of the texts of an answer, as where a style or a rare word "
                "is the trigger."
            )
    return Answer("What was wrong or suspected", f"{premise} {shown}", details)


def _read_differently(searched: Sequence[TrainingReport]) -> str:
    words = [f'"{word.word}"' for trained in searched for word in trained.contrast]
    return (
        "Words turn the given adapter's answer that say little to a student of its clean answers, as where a "
        f"style is the trigger: {named(words, WORDS_TOLD)}."
    )


def _done(report: Report) -> Answer:
    question = "What was done"
    read = describe_adapter(report.modules, report.totals, report.adapter.format)
    if report.kind == "inspect":
        lead = f"Inspected: its weights were measured and nothing was changed. {read}"
        return Answer(question, lead, [strongest(report.modules)] if report.modules else [])
    lead = f"Ran {', then '.join(f'{step.type} ({step.does})' for step in report.steps)}."
    if report.training:
        texts = max(trained.texts for trained in report.training)
        labelled = max(trained.labelled for trained in report.training)
        lead += f" It learned from {texts:,} texts, {labelled:,} of them with their answers."
    elif any(isinstance(step, CleanSubspaceStep) for step in report.steps):
        lead += " It learned from the given text which directions are in use."
    else:
        lead += " From weights alone, without text."
    trained = [sentence for each in report.training for sentence in describe_training(each)]
    return Answer(question, lead, [read, *trained])


def _changed(report: Report) -> Answer:
    question = "What changed"
    totals = report.totals
    if report.kind == "inspect":
        return Answer(question, "Nothing: an inspection writes no adapter.", [])
    behaviour = _behaviour_change(report.evaluation)
    if unchanged(report):
        lead = " ".join([*behaviour, "No LoRA module changed: the update is what it was."])
        reasons = Counter(step.reason for module in report.modules for step in module.steps if step.reason)
        return Answer(question, lead, [f"{reason} ({modules(n)})." for reason, n in reasons.most_common(3)])
    far = moved(totals.distance or 0.0)
    weights = (
        f"{count_changed(report)} of {modules(totals.modules)} changed; the new update differs "
        f"from the old by {far} its norm."
    )
    details = [f"‖ΔW‖ over all modules went from {totals.norm_before:.4g} to {totals.norm_after or 0:.4g}."]
    steps = [(step.distance, step.type, module.name) for module in report.modules for step in module.steps]
    furthest, step, name = max(steps)
    details.append(
        f"The furthest that a step moved a module: {step} moved {name} by {moved(furthest)} its norm."
    )
    return Answer(question, " ".join([*behaviour, weights]), details)


def _sure(report: Report) -> Answer:
    question = "How sure one can be"
    compared_by_weights = [comparison.sentence for comparison in report.placebo]
    told = report.evaluation
    if told is None:
        ran = any(step.text is not None for step in report.steps)
        lead = "Behaviour was not measured, so whether a trigger works is not known."
        if report.placebo:
            lead += f" {_by_weights(report.placebo[-1])}"
        reason = [] if report.kind == "inspect" else [NOTHING_TO_MEASURE_ON if ran else NOT_MEASURED]
        return Answer(question, lead, [*reason, *compared_by_weights])
    lead = " ".join([*_chance(told), *_beside(told), *_probed(told)])
    return Answer(question, lead, [*told.sentences, *compared_by_weights])


def _next(report: Report) -> Answer:
    first, *others = advice(report)
    return Answer("What to do next", first, others)


def _behaviour_fact(report: Report) -> Fact:
    told = report.evaluation
    before, after = variant(told, "before"), variant(told, "after")
    if told is None or before is None:
        return Fact("Behaviour", "not measured", "whether a trigger works is not known")
    of = right(told)
    clean = _arrow(before.clean, after.clean if after else None)
    if before.attack is not None:
        value = f"attack success {_arrow(before.attack, after.attack if after else None)}"
        return Fact("Behaviour", value, f"{of} {clean}")
    flips = after.flips if after is not None else before.flips
    note = "attack success not measured: no trigger was given"
    if flips is not None and flips.count == 0:
        note = f"no sign found in {flips.n} probes (rate at most {at_most(flips.n):.1%} at 95%)"
    return Fact("Behaviour", f"{of} {clean}", note)


def _beside_fact(report: Report) -> Fact:
    name = "Beside its controls"
    told = report.evaluation
    if told is not None and told.placebo is not None:
        return Fact(name, _BY_BEHAVIOUR[told.placebo], f"measured on {told.examples} examples")
    if told is not None and (standing := _standing(told)):
        note = f"simpler ways, measured on the same {told.examples} examples"
        return Fact(name, standing[0], ", ".join([*standing[1:], note]))
    if report.placebo:
        last = report.placebo[-1]
        return Fact(name, BY_WEIGHTS[last.verdict], "this says nothing of behaviour")
    return Fact(name, "not compared", "no control was run")


def _sides(told: Evaluation) -> list[tuple[bool, bool]]:
    """Of each control, whether the repair is better and no worse, and whether it is worse and no better."""
    after = variant(told, "after")
    if after is None:
        return []
    pairs = [compared(after, variant) for variant in told.variants if variant.name in CONTROLS]
    return [(bool(better) and not worse, bool(worse) and not better) for better, worse in pairs]


def _standing(told: Evaluation) -> list[str]:
    """What the repair is beside its controls, in words; none where there are none."""
    sides = _sides(told)
    if not sides:
        return []
    better, worse = (sum(side) for side in zip(*sides, strict=True))
    if len(sides) == 1:
        told_apart = "better than" if better else "worse than" if worse else "not told apart from"
        return [f"{told_apart} its one control"]
    if better == len(sides):
        return [f"better than all {better} controls"]
    return [f"better than {better} of {len(sides)} controls", f"worse than {worse or 'none'}"]


def _behaviour_change(told: Evaluation | None) -> list[str]:
    before, after = variant(told, "before"), variant(told, "after")
    if told is None or before is None or after is None:
        return []
    parts = []
    if before.attack is not None and after.attack is not None:
        parts.append(f"attack success went from {before.attack.rate:.1%} to {after.attack.rate:.1%}")
    parts.append(f"{right(told)} from {before.clean.rate:.1%} to {after.clean.rate:.1%}")
    if len(parts) == 1:
        parts = [parts[0].replace(" from ", " went from ", 1)]
    joined = ", ".join(parts)
    return [f"{joined[:1].upper()}{joined[1:]}."]


def _chance(told: Evaluation) -> list[str]:
    """Whether chance explains what was measured to change."""
    before, after = variant(told, "before"), variant(told, "after")
    if before is None or after is None:
        return [f"Measured on {told.examples} examples."]
    if before.attack is None or after.attack is None:
        return [
            f"Measured on {told.examples} examples. No trigger was given: attack success was not measured."
        ]
    if below(after.attack, before.attack):
        return [
            f"Chance does not explain the fall in attack success (95% intervals apart, n = {after.attack.n})."
        ]
    if below(before.attack, after.attack):
        return [f"Attack success rose, beyond chance (95% intervals apart, n = {after.attack.n})."]
    return [f"Attack success is not measured to differ (95% intervals overlap, n = {after.attack.n})."]


def _beside(told: Evaluation) -> list[str]:
    """How the repair stands beside its controls."""
    if told.placebo is not None:
        return [f"The repair {_BY_BEHAVIOUR[told.placebo]}."]
    standing = _standing(told)
    return [f"The repair is {' and '.join(standing)}."] if standing else []


def _probed(told: Evaluation) -> list[str]:
    """What the trigger-blind probes found of the adapter as it stands."""
    before, after = variant(told, "before"), variant(told, "after")
    now = after or before
    if now is None or now.flips is None:
        return []
    if now.flips.count == 0:
        return [f"No sign found in {now.flips.n} probes (rate at most {at_most(now.flips.n):.1%} at 95%)."]
    earlier = f" ({before.flips.count} before the repair)" if after and before and before.flips else ""
    return [
        f"Rare words and plain sentences put in flipped {now.flips.count} of {now.flips.n} answers{earlier}."
    ]


def _by_weights(comparison: PlaceboComparison) -> str:
    return {
        "indistinguishable_by_weights": "By weights the change is not told apart from its controls.",
        "distinct_by_weights": "By weights the change is distinct from its controls, which says nothing of "
        "behaviour.",
        "no_change": "The step changed nothing that could be compared.",
    }[comparison.verdict]


def _turned(found: list[FoundWord]) -> str:
    sure = [word for word in found if word.as_trigger]
    quoted = named([f'"{word.word}"' for word in sure or found], WORDS_TOLD)
    how = "as a trigger would" if sure else FROM_ONE_PLACE
    return f"A search found words that turn the given adapter's answer {how}: {quoted}."


def _arrow(before: Rate, after: Rate | None) -> str:
    return f"{before.rate:.1%}" if after is None else f"{before.rate:.1%} → {after.rate:.1%}"
