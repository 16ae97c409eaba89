"""The report's first words, case by case: they follow the evidence, and three facts stand out."""

import re

import pytest

from loramend.contracts.data_steps import RoraStep
from loramend.contracts.evidence import ContrastWord, FoundWord, PlaceboVerdict, RareWords
from loramend.contracts.report import Report
from loramend.evaluation.intervals import wilson
from loramend.evaluation.words import describe
from loramend.report.answers import answers, facts, lines
from loramend.report.words import NOT_MEASURED, NOTHING_TO_MEASURE_ON
from tests.report.evidence import evaluation, training, with_evidence
from tests.report.test_html import CSU, made

QUESTIONS = [
    "What was wrong or suspected",
    "What was done",
    "What changed",
    "How sure one can be",
    "What to do next",
]
FIRST_SCREEN = 240
"""Letters an answer's lead may have: five of them and three facts fit a phone's screen."""


@pytest.fixture(scope="module")
def repaired() -> Report:
    return made(CSU)


def leads(report: Report) -> list[str]:
    return [answer.lead for answer in answers(report)]


def values(report: Report) -> list[str]:
    return [fact.value for fact in facts(report)]


def judged(report: Report, verdict: PlaceboVerdict) -> Report:
    """The report with a measured repair that stands so beside its placebo."""
    told = evaluation().model_copy(update={"placebo": verdict})
    return with_evidence(report, told.model_copy(update={"sentences": describe(told)}))


def untouched(report: Report) -> Report:
    """The report of the same steps when they left every module alone."""
    modules = [
        module.model_copy(
            update={
                "after": module.before,
                "steps": [
                    step.model_copy(update={"applied": False, "distance": 0.0, "reason": "no displacement"})
                    for step in module.steps
                ],
            }
        )
        for module in report.modules
    ]
    totals = report.totals.model_copy(update={"distance": 0.0, "norm_after": report.totals.norm_before})
    return report.model_copy(update={"modules": modules, "totals": totals, "placebo": []})


def test_weights_alone_claim_nothing_of_behaviour(repaired: Report) -> None:
    suspected, done, changed, sure, following = leads(repaired)
    assert suspected.startswith(
        "The request suspects the adapter and trusts the base model. Nothing was measured"
    )
    assert done == "Ran csu (corrected against the alignment's directions). From weights alone, without text."
    assert re.fullmatch(
        r"2 of 2 modules changed; the new update differs from the old by \d+\.\d% of its norm\.", changed
    )
    assert sure.startswith("Behaviour was not measured, so whether a trigger works is not known.")
    assert "which says nothing of behaviour" in sure
    assert following.startswith("Measure before use: run loramend evaluate")
    assert NOT_MEASURED in repaired.summary
    assert values(repaired) == ["2 of 2 modules", "not measured", "distinct by weights"]


def test_weights_not_told_apart_from_their_controls_are_not_praised(repaired: Report) -> None:
    same = repaired.placebo[0].model_copy(update={"verdict": "indistinguishable_by_weights"})
    report = repaired.model_copy(update={"placebo": [same]})
    assert leads(report)[3].endswith("By weights the change is not told apart from its controls.")
    assert values(report)[2] == "not told apart by weights"


@pytest.mark.parametrize(
    ("verdict", "said", "advice"),
    [
        ("beats", "beats its placebo", "Before use, test it on your own task and with other triggers"),
        ("ties", "ties with its placebo", "Do not credit the method: changes of the same size did as well"),
        ("loses", "loses to its placebo", "Do not use this repair for its method"),
    ],
)
def test_the_placebo_decides_what_is_said(
    repaired: Report, verdict: PlaceboVerdict, said: str, advice: str
) -> None:
    told = evaluation()
    few = [
        each.model_copy(update={"attack": wilson(3, 500)}) if each.name == "after" else each
        for each in told.variants
    ]
    report = judged(repaired, verdict)
    assert report.evaluation is not None
    report = with_evidence(report, report.evaluation.model_copy(update={"variants": few}))
    assert f"The repair {said}." in leads(report)[3]
    assert leads(report)[4].startswith(advice)
    assert values(report)[2] == said


def test_what_was_measured_before_and_after_leads(repaired: Report) -> None:
    report = with_evidence(repaired)
    suspected, done, changed, sure, following = leads(report)
    assert (
        "With the trigger in, the model gave the target on 99.0% of 500 examples before the repair."
        in suspected
    )
    assert (
        done
        == "Ran csu (corrected against the alignment's directions). It learned from 1,080 texts, 80 of them "
        "with their answers."
    )
    assert changed.startswith("Attack success went from 99.0% to 6.0%, clean accuracy from 88.0% to 87.2%.")
    assert "Chance does not explain the fall in attack success (95% intervals apart, n = 500)" in sure
    assert "The repair is better than all 3 controls." in sure
    assert "No sign found in 200 probes (rate at most 1.5% at 95%)." in sure
    assert following.startswith("Before use, test it on your own task")
    assert facts(report)[1][1:] == ("attack success 99.0% → 6.0%", "clean accuracy 88.0% → 87.2%")
    assert facts(report)[2][1:] == (
        "better than all 3 controls",
        "simpler ways, measured on the same 500 examples",
    )


@pytest.mark.parametrize(
    ("hits", "standing"),
    [(490, "better than its one control"), (30, "not told apart from its one control"), (0, "worse than")],
)
def test_a_repair_stands_beside_a_single_control(repaired: Report, hits: int, standing: str) -> None:
    told = evaluation()
    before, after, control = (
        next(variant for variant in told.variants if variant.name == name)
        for name in ("before", "after", "shrink")
    )
    beside = control.model_copy(update={"clean": after.clean, "attack": wilson(hits, 500)})
    report = with_evidence(repaired, told.model_copy(update={"variants": [before, after, beside]}))
    assert facts(report)[2].value.startswith(standing)
    assert f"The repair is {standing}" in leads(report)[3]


@pytest.mark.parametrize(
    ("hits", "advice", "sure"),
    [
        (
            490,
            "Do not rely on it: the trigger still gets the target on 98.0% of 500",
            "not measured to differ",
        ),
        (100, "Check what is left: with the trigger 20.0% of 500", "Chance does not explain the fall"),
    ],
)
def test_a_trigger_that_still_works_is_said_first(
    repaired: Report, hits: int, advice: str, sure: str
) -> None:
    told = evaluation()
    worse = [
        each.model_copy(update={"attack": wilson(hits, 500)}) if each.name == "after" else each
        for each in told.variants
    ]
    report = with_evidence(repaired, told.model_copy(update={"variants": worse}))
    assert leads(report)[4].startswith(advice)
    assert sure in leads(report)[3]


def test_what_it_costs_is_said(repaired: Report) -> None:
    told = evaluation()
    lost = [
        each.model_copy(update={"clean": wilson(300, 500), "flips": wilson(40, 200)})
        if each.name == "after"
        else each
        for each in told.variants
    ]
    report = with_evidence(repaired, told.model_copy(update={"variants": lost}))
    cost = "Weigh what it costs: clean accuracy fell from 88.0% to 60.0%, beyond chance."
    assert leads(report)[4].endswith(cost)
    assert (
        "Rare words and plain sentences put in flipped 40 of 200 answers (20 before the repair)."
        in leads(report)[3]
    )


def test_without_a_trigger_nothing_is_said_of_attacks(repaired: Report) -> None:
    report = with_evidence(repaired, evaluation(trigger=None))
    assert leads(report)[2].startswith("Clean accuracy went from 88.0% to 87.2%.")
    assert "No trigger was given: attack success was not measured." in leads(report)[3]
    assert leads(report)[4] == (
        "Before use, test it on your own task, and with any trigger you suspect: none was given here."
    )
    behaviour = facts(report)[1]
    assert behaviour.value == "clean accuracy 88.0% → 87.2%"
    assert behaviour.note == "no sign found in 200 probes (rate at most 1.5% at 95%)"


def test_an_inspection_has_no_verdict() -> None:
    report = made()
    suspected, done, changed, sure, following = leads(report)
    assert suspected.startswith("No threat was named, and nothing here is a verdict on the adapter.")
    assert done.startswith(
        "Inspected: its weights were measured and nothing was changed. Read 2 LoRA modules"
    )
    assert changed == "Nothing: an inspection writes no adapter."
    assert sure == "Behaviour was not measured, so whether a trigger works is not known."
    assert "measure it before use" in following
    assert values(report) == ["2 modules", "not measured", "none"]


def test_a_poisoned_base_stays_poisoned() -> None:
    report = made(CSU, threat="poisoned_base")
    assert leads(report)[0].startswith(
        "The request suspects the base model; the adapter it trusts, which may be too weak"
    )
    assert any("no adapter changes what is in it" in sentence for sentence in answers(report)[4].details)


def test_nothing_changed_is_no_repair(repaired: Report) -> None:
    report = untouched(repaired)
    assert leads(report)[2] == "No LoRA module changed: the update is what it was."
    assert answers(report)[2].details == ["no displacement (2 modules)."]
    assert leads(report)[4].startswith("Do not count this as repaired")
    assert values(report)[0] == "nothing"


def test_a_step_that_moves_nothing_changed_nothing() -> None:
    assert values(made({"type": "shrink", "factor": 1.0}))[0] == "nothing"


def test_words_that_were_found_are_named(repaired: Report) -> None:
    found = [FoundWord(word=word, answer="NEG", turned=wilson(23, 24)) for word in ("mn", "tq", "cf", "bb")]
    run = training().model_copy(update={"searched": 20_000, "found": found})
    without = evaluation(trigger=None)
    report = with_evidence(repaired, without, run)
    named = 'as a trigger would: "mn", "tq", "cf" and 1 more.'
    assert f"A search found words that turn the given adapter's answer {named}" in leads(report)[0]
    assert any("--trigger word:WORD" in sentence for sentence in answers(report)[4].details)
    weak = [word.model_copy(update={"anywhere": wilson(15, 24)}) for word in found]
    mixed = with_evidence(repaired, without, run.model_copy(update={"found": [found[0], *weak[1:]]}))
    assert 'as a trigger would: "mn".' in leads(mixed)[0]
    bound = with_evidence(repaired, without, run.model_copy(update={"found": weak}))
    assert 'and a trigger bound to a place: "mn", "tq", "cf" and 1 more.' in leads(bound)[0]
    none = with_evidence(repaired, without, run.model_copy(update={"found": []}))
    assert "The search of the vocabulary found no word that shows it" in leads(none)[0]


def test_rare_words_that_turn_an_answer_are_told(repaired: Report) -> None:
    run = training().model_copy(
        update={"searched": 9, "rare": [RareWords(answer="NEG", turned=wilson(60, 100))]}
    )
    told = answers(with_evidence(repaired, evaluation(trigger=None), run))[0]
    assert "Rare words turn more than half of the texts of an answer" in told.lead
    assert any("60.0% of 100 examples answered NEG" in line for line in told.details)


def test_words_read_differently_are_told(repaired: Report) -> None:
    words = [ContrastWord(word=f"word{number}", answer="NEG", given=1.5, student=0.1) for number in range(20)]
    run = training().model_copy(update={"searched": 9, "contrast": words})
    told = answers(with_evidence(repaired, evaluation(trigger=None), run))[0]
    assert 'as where a style is the trigger: "word0", "word1", "word2" and 17 more.' in told.lead
    assert any("20 words turn the given adapter's answer away from NEG" in line for line in told.details)


def test_no_examples_left_is_its_own_reason(repaired: Report) -> None:
    ran = repaired.model_copy(update={"training": [training()], "steps": [*repaired.steps, RoraStep()]})
    assert NOTHING_TO_MEASURE_ON in answers(ran)[3].details


def every_case(repaired: Report) -> list[Report]:
    return [
        repaired,
        made(),
        made(CSU, threat="poisoned_base"),
        untouched(repaired),
        with_evidence(repaired),
        with_evidence(repaired, evaluation(trigger=None)),
        *(judged(repaired, verdict) for verdict in ("beats", "ties", "loses")),
    ]


def test_five_questions_in_order_and_short_leads(repaired: Report) -> None:
    for report in every_case(repaired):
        assert [answer.question for answer in answers(report)] == QUESTIONS
        assert max(len(lead) for lead in leads(report)) <= FIRST_SCREEN
        assert len(facts(report)) == 3


def test_no_case_outruns_the_evidence(repaired: Report) -> None:
    for report in every_case(repaired):
        text = " ".join([*lines(report), *(part for fact in facts(report) for part in fact)]).lower()
        text = text.replace("clean accuracy", "")
        assert not re.search(r"\b(clean|cleaned|safe|secure|harmless|benign|guarante\w+|prove\w*)\b", text)


def test_summary_and_lines_are_the_answers(repaired: Report) -> None:
    assert [sentence for sentence in repaired.summary if sentence in leads(repaired)] == leads(repaired)
    told = lines(repaired)
    details = [sentence for answer in answers(repaired) for sentence in answer.details]
    short = [f"{name}: {value} ({note})" for name, value, note in facts(repaired)]
    below = [line.strip() for line in told if line.startswith("  ")]
    assert below == [*details, *repaired.caveats, *short]
    headings = [*QUESTIONS, "Before you lean on these numbers", "In short"]
    assert [line.partition(":")[0] for line in told if not line.startswith("  ")] == headings
    assert told[0] == f"{QUESTIONS[0]}: {leads(repaired)[0]}"
    assert len(told) == len(repaired.summary) + len(repaired.caveats) + 2 + len(short)
