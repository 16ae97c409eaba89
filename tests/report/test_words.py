"""The summary and caveats follow what was done and measured."""

import pytest

from loramend.contracts.evidence import FoundWord
from loramend.contracts.steps import STEPS, Step
from loramend.evaluation.intervals import wilson
from loramend.report.words import (
    MEASURED_HERE,
    PROJECTED,
    RESCALED,
    TAUGHT,
    caveats,
    describe_search,
    describe_training,
)
from tests.report.evidence import calibration, evaluation, training


def steps(*types: str, **values: object) -> list[Step]:
    return [STEPS.validate_python({"type": name, **values}) for name in types]


def test_training_and_calibration_are_told() -> None:
    trained = (
        "Step 1 trained 24,576 parameters for 30 steps on 1,080 texts, 80 of them with their answers; the "
        "loss went from 1.25 to 0.25."
    )
    assert describe_training(training()) == [trained, calibration().sentence]
    drafted = describe_training(training().model_copy(update={"drafted": 30}))[0]
    assert "of them with their answers and 30 prompts with the given adapter's own; the loss" in drafted


def test_the_search_tells_what_it_found_and_what_it_cannot() -> None:
    found = [FoundWord(word=f"w{index}", answer="NEG", turned=wilson(23, 24)) for index in range(10)]
    found.append(FoundWord(word="mn", answer="POS", turned=wilson(20, 20)))
    told = describe_search(training().model_copy(update={"searched": 20_000, "found": found}))
    assert "11 of 20,000 words" in told
    assert "as a trigger does" in told
    assert "one place" not in told
    assert 'away from NEG "w0" (23 of 24), "w1" (23 of 24)' in told
    assert "and 5 more" in told
    assert 'away from POS "mn" (20 of 20)' in told
    weak = [word.model_copy(update={"anywhere": wilson(15, 24)}) for word in found[:2]]
    told = describe_search(training().model_copy(update={"searched": 9, "found": [found[-1], *weak]}))
    assert '"mn" (20 of 20), from wherever they stand, as a trigger does; away from NEG "w0"' in told
    assert '"w1" (23 of 24), from one place alone' in told
    repaired = found[-1].model_copy(update={"after": wilson(1, 19)})
    told = describe_search(training().model_copy(update={"searched": 9, "found": [repaired]}))
    assert '"mn" (20 of 20, after the step 1 of 19 held out)' in told
    told = describe_search(training().model_copy(update={"searched": 9, "found": weak}))
    assert "none of them from wherever it stands" in told
    none = describe_search(training().model_copy(update={"searched": 20_000}))
    assert "none turned" in none
    assert "may pass this search" in none
    phrase = FoundWord(word="a b", answer="POS", turned=wilson(18, 20), overrides=wilson(19, 20))
    told = describe_search(training().model_copy(update={"searched": 20_000, "found": [phrase]}))
    assert "none turned" in told
    assert '"a b" turns 19 of 20 texts filled with words that speak for POS' in told
    assert "18 of 20 plain ones." in told


@pytest.mark.parametrize(
    ("taken", "threat", "expected"),
    [
        (steps("clean_subspace"), "poisoned_adapter", {PROJECTED}),
        (steps("rora"), "poisoned_adapter", {TAUGHT}),
        (steps("rora"), "poisoned_base", set()),
        (steps("rora", teacher=0), "poisoned_adapter", set()),
        (steps("rora", ratio=0.3), "poisoned_base", {RESCALED}),
        (steps("rescale"), "poisoned_base", {RESCALED}),
        (steps("shrink"), "poisoned_adapter", set()),
    ],
)
def test_caveats_are_the_steps(taken: list[Step], threat: str, expected: set[str]) -> None:
    found = caveats((), taken, "poisoned_base" if threat == "poisoned_base" else "poisoned_adapter")
    assert {PROJECTED, TAUGHT, RESCALED, MEASURED_HERE} & set(found) == expected


def test_a_measurement_is_bounded() -> None:
    assert MEASURED_HERE in caveats((), [], None, evaluation())


def test_trained_heads_are_not_called_copied() -> None:
    headed = ["base_model.model.classifier.weight"]
    assert "copied byte for byte" in caveats(headed, steps("rora"))[-1]
    assert "copied" not in caveats(headed, steps("rora", head="train"))[-1]
    assert "trained on" in caveats(headed, steps("rora", head="train"))[-1]
