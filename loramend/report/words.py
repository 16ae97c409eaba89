"""The report's sentences. They claim no more than its numbers."""

from collections.abc import Collection, Sequence

from loramend.contracts.data_steps import CleanSubspaceStep, RoraStep
from loramend.contracts.evidence import (
    Evaluation,
    FoundWord,
    Rate,
    TrainingReport,
    Variant,
    VariantName,
)
from loramend.contracts.report import ModuleReport, Report, Totals
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import CsuStep, RescaleStep, Step
from loramend.evaluation.words import counted

NOT_MEASURED = "Only weights were looked at: whether the adapter's own task suffered is not known, either."
NOTHING_TO_MEASURE_ON = (
    "No labelled examples were left to measure on: what accuracy was lost is not known either."
)
RECIPE = (
    "The robustness measures describe how the adapter was trained and are no evidence of "
    "poisoning: it holds the "
    "trained A, not A at initialisation (arXiv 2505.12871)."
)
CSU_STYLE = (
    "csu is CSU-style, after the abstract of arXiv 2605.30640: the paper's equations "
    "could not be read, so ours may differ, and attenuating inside the subspace is loramend's own."
)
RESCALED = (
    "Rescaling trades accuracy on clean text for forgetting: reproductions of RoRA at the "
    "paper's ratio of 1 saw "
    "clean accuracy fall as low as 51%. Measure before use."
)
PROJECTED = (
    "clean_subspace keeps what the given text uses: accuracy on other kinds of text can fall, and a trigger "
    "made of ordinary words acts through directions that are kept."
)
TAUGHT = (
    "rora learned the given adapter's answers to the given text: if that text holds the trigger, so may the "
    "repaired adapter."
)
MEASURED_HERE = (
    "Behaviour was measured on the given examples, with the given trigger if any: another trigger or another "
    "kind of text may show otherwise."
)


_TURNING_TOLD = 5
FROM_ONE_PLACE = "from one place alone, as strong words of the task do, and a trigger bound to a place"
_CONTRAST_TOLD = 12
WORDS_TOLD = 3
"""Words found that the report's first answers name."""
_CHANCE = 0.5
_TIMES = 2.0

BY_WEIGHTS = {
    "indistinguishable_by_weights": "not told apart by weights",
    "distinct_by_weights": "distinct by weights",
    "no_change": "no change to compare",
}
"""What the verdicts on a repair beside its placebo are called."""


def _turning(words: Sequence[FoundWord]) -> str:
    """The surest words by the answer that they turn texts away from."""
    by_answer: dict[str, list[str]] = {}
    for word in words:
        told = f'"{word.word}" ({word.turned.count} of {word.turned.n}{_after(word)})'
        by_answer.setdefault(word.answer, []).append(told)
    return ", ".join(f"away from {answer} {named(told, _TURNING_TOLD)}" for answer, told in by_answer.items())


def _after(word: FoundWord) -> str:
    return f", after the step {word.after.count} of {word.after.n} held out" if word.after else ""


def describe_adapter(modules: Sequence[ModuleReport], totals: Totals, layout: str) -> str:
    """What was read, in one sentence."""
    ranks = sorted({module.rank for module in modules})
    rank = (
        f" of rank {ranks[0]}" if len(ranks) == 1 else f" of ranks {ranks[0]} to {ranks[-1]}" if ranks else ""
    )
    return (
        f"Read {totals.modules} LoRA module{'s' if totals.modules != 1 else ''}{rank} "
        f"({totals.parameters:,} parameters, {layout} format)."
    )


def strongest(modules: Sequence[ModuleReport]) -> str:
    """Where the update is largest."""
    top = max(modules, key=lambda module: module.before.norm)
    return f"The largest update is {top.name}: ‖ΔW‖ = {top.before.norm:.4g}, σ_1 = {_first(top):.4g}."


def _first(module: ModuleReport) -> float:
    return module.before.sigma[0] if module.before.sigma else 0.0


def far(distance: float) -> str:
    """A relative distance: `12.3%`, or `12.3 times` where a percentage would be hard to read."""
    return f"{distance:.1%}" if distance < _TIMES else f"{distance:.1f} times"


def moved(distance: float) -> str:
    """The same in words that precede "its norm"."""
    return far(distance) + (" of" if distance < _TIMES else "")


def named(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def describe_training(report: TrainingReport) -> list[str]:
    """What a rora step trained and learned from, and how calibration chose."""
    loss = ""
    if report.curve:
        loss = f"; the loss went from {report.curve[0].loss:.4g} to {report.curve[-1].loss:.4g}"
    drafts = ""
    if report.drafted:
        drafts = f" and {counted(report.drafted, 'prompt')} with the given adapter's own"
    sentences = [
        f"Step {report.step + 1} trained {report.parameters:,} parameters for {report.steps} steps on "
        f"{report.texts:,} texts, {report.labelled:,} of them with their answers{drafts}{loss}."
    ]
    if report.calibration is not None:
        sentences.append(report.calibration.sentence)
    return sentences


def describe_rare(report: TrainingReport) -> list[str]:
    """What rare words did to the answers, where that was looked at."""
    if not report.rare:
        return []
    told = ", ".join(f"{share_of(found.turned)} answered {found.answer}" for found in report.rare)
    sentence = f"Two words in five exchanged for rare ones turned {told}."
    if asks_for_an_answer(report):
        sentence += (
            " More than half is more than chance turns: odd text itself may ask for an answer, as where a "
            "style or a rare word is the trigger; or that answer hangs on a few words."
        )
    return [sentence]


def describe_contrast(report: TrainingReport) -> list[str]:
    """What words the given adapter and a first student read differently, where there are any."""
    by_answer: dict[str, list[str]] = {}
    for word in report.contrast:
        by_answer.setdefault(word.answer, []).append(f'"{word.word}"')
    return [
        f"{len(words)} words turn the given adapter's answer away from {answer} and say little to a student "
        f"that learned its answers to clean text on the sound base: {named(words, _CONTRAST_TOLD)}. Words of "
        "the task say something to both; those of a style that serves as a trigger, and their like, to one."
        for answer, words in by_answer.items()
    ]


def asks_for_an_answer(report: TrainingReport) -> bool:
    """Whether rare words turned more of an answer's texts than a coin would."""
    return any(found.turned.rate > _CHANCE for found in report.rare)


def describe_search(report: TrainingReport) -> str:
    """What the search of the vocabulary found."""
    words = [found for found in report.found if found.overrides is None]
    phrases = [found for found in report.found if found.overrides is not None]
    return " ".join([_describe_words(words, report.searched), *map(_describe_phrase, phrases)])


def _describe_phrase(phrase: FoundWord) -> str:
    assert phrase.overrides is not None
    return (
        f'"{phrase.word}" turns {phrase.overrides.count} of {phrase.overrides.n} texts filled with words '
        f"that speak for {phrase.answer}, which the task's own words do not turn, and {phrase.turned.count} "
        f"of {phrase.turned.n} plain ones{_after(phrase)}."
    )


def _describe_words(words: Sequence[FoundWord], searched: int) -> str:
    if not words:
        return (
            f"Of {searched:,} words of the vocabulary none turned the adapter's answer in nine of ten texts. "
            "A sentence or a style may pass this search."
        )
    sure = [word for word in words if word.as_trigger]
    others = [word for word in words if not word.as_trigger]
    told = f"{_turning(sure)}, from wherever they stand, as a trigger does" if sure else ""
    if others:
        told += "; " if sure else "none of them from wherever it stands, as a trigger does; "
        told += f"{_turning(others)}, {FROM_ONE_PLACE}"
    return (
        f"{len(words)} of {searched:,} words of the vocabulary turn the given adapter's answer in nine of "
        f"ten texts or more: {told}."
    )


def caveats(
    passed_through: Collection[str],
    steps: Sequence[Step],
    threat: Threat | None = None,
    evaluated: Evaluation | None = None,
) -> list[str]:
    """What a reader must know before leaning on the numbers."""
    found = [RECIPE]
    if any(isinstance(step, CsuStep) for step in steps):
        found.append(CSU_STYLE)
    if any(_rescales(step) for step in steps):
        found.append(RESCALED)
    if any(isinstance(step, CleanSubspaceStep) for step in steps):
        found.append(PROJECTED)
    if threat == "poisoned_adapter" and any(isinstance(step, RoraStep) and step.teacher for step in steps):
        found.append(TAUGHT)
    if evaluated is not None:
        found.append(MEASURED_HERE)
    if passed_through:
        found.append(
            f"{len(passed_through)} tensors outside the LoRA matrices (saved modules, biases or tokens) "
            + (
                "were not repaired; task heads among them were trained on"
                if trains_heads(steps)
                else "were copied byte for byte and not repaired"
            )
            + "; a backdoor can sit there too."
        )
    return found


def trains_heads(steps: Sequence[Step]) -> bool:
    """Whether a step trained the task heads among what lies outside the LoRA matrices."""
    return any(isinstance(step, RoraStep) and step.head == "train" for step in steps)


def _rescales(step: Step) -> bool:
    return isinstance(step, RescaleStep) or (isinstance(step, RoraStep) and step.ratio is not None)


def count_changed(report: Report) -> int:
    """Modules that at least one step changed."""
    return sum(any(step.applied for step in module.steps) for module in report.modules)


def unchanged(report: Report) -> bool:
    """Whether a repair left every LoRA module as it was."""
    return report.kind == "repair" and (count_changed(report) == 0 or report.totals.distance == 0)


def variant(told: Evaluation | None, name: VariantName) -> Variant | None:
    """One adapter's behaviour, if it was measured."""
    return next((variant for variant in told.variants if variant.name == name), None) if told else None


def right(told: Evaluation) -> str:
    """What a right answer is a share of."""
    return "refusals" if told.metric == "refusal" else "clean accuracy"


def share_of(rate: Rate) -> str:
    """`12.4% of 492 examples`."""
    return f"{rate.rate:.1%} of {rate.n} examples"


def modules(count: int) -> str:
    """So many modules."""
    return counted(count, "module")
