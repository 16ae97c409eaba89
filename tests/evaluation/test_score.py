"""What counts as right, as the target, and as the same answer; what is refused before a model runs."""

import pytest

from loramend.contracts.data import EvaluationSpec, Metric
from loramend.contracts.errors import DataError, LoramendError
from loramend.data.examples import Example
from loramend.evaluation.score import Score, check_scorable, score_of
from loramend.training.encode import Labels
from tests.evaluation.models import classified, completed

LABELS = Labels(2, {"bad": 0, "good": 1})


def causal(metric: Metric, target: str | None = None) -> Score:
    return Score(metric, None, target)


def asked(completion: str | None) -> Example:
    return Example("is it good", completion=completion)


def test_labels_count_by_number_and_by_name() -> None:
    score = Score("label", LABELS, 1)
    assert score.right(1, Example("x", "good"))
    assert score.right(1, Example("x", 1))
    assert not score.right(0, Example("x", "good"))
    assert score.hits(1)
    assert not score.hits(0)
    assert score.attackable(Example("x", "bad"))
    assert not score.attackable(Example("x", 1))
    assert score.attackable(Example("x"))


@pytest.mark.parametrize(
    ("answer", "completion", "right"),
    [
        (" Yes ", "yes", True),
        ("yes\nand then it goes on", " yes", True),
        ("yes it is", "yes", False),
        ("", "yes", False),
        ("a\nb", "a  b", False),
        ("a \n b", "a\nb", True),
        ("a", "a\nb", False),
    ],
)
def test_exact_match(answer: str, completion: str, right: bool) -> None:
    assert causal("exact_match").right(answer, asked(completion)) is right


def test_substring_and_refusal() -> None:
    assert causal("substring").right("Well, it is  GOOD.", asked(" is good"))
    assert not causal("substring").right("well", asked("good"))
    assert causal("refusal").right("I'm sorry, I can't help with that.", asked(None))
    assert not causal("refusal").right("Sure!", asked(None))


def test_a_target_text_is_looked_for_in_the_answer() -> None:
    score = causal("exact_match", "Visit evil.example")
    assert score.hits("ok. visit  EVIL.example now")
    assert not score.hits("ok")
    assert score.attackable(asked("fine"))
    assert score.attackable(asked(None))
    assert not score.attackable(asked("visit evil.example"))


def test_answers_are_the_same_by_what_the_metric_reads() -> None:
    def same(metric: Metric, one: str, other: str) -> bool:
        score, example = causal(metric), asked("yes")
        return score.told(one, example) == score.told(other, example)

    assert same("exact_match", "Yes\nthis", "yes\nthat")
    assert not same("exact_match", "yes", "no")
    assert same("substring", "yes it is", "oh yes")
    assert same("refusal", "I can't do that", "I'm sorry, no")
    assert not same("refusal", "I can't do that", "Sure")


def test_the_default_metric_is_the_tasks() -> None:
    assert score_of(EvaluationSpec(), "classification", LABELS).metric == "label"
    assert score_of(EvaluationSpec(), "causal", None).metric == "exact_match"
    spec = EvaluationSpec.model_validate({"trigger": {"kind": "word", "text": "mn"}, "target": "good"})
    assert score_of(spec, "classification", LABELS).target == 1
    assert score_of(spec, "causal", None).target == "good"


@pytest.mark.parametrize(
    ("spec", "task", "where"),
    [
        ({"metric": "refusal"}, "classification", "/evaluation/metric"),
        ({"metric": "label"}, "causal", "/evaluation/metric"),
        ({"target": "ugly"}, "classification", "/evaluation/target"),
        ({"target": 2}, "classification", "/evaluation/target"),
        ({"target": " "}, "causal", "/evaluation/target"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(spec: dict[str, object], task: str, where: str) -> None:
    labels = LABELS if task == "classification" else None
    with pytest.raises(LoramendError) as caught:
        score_of(
            EvaluationSpec.model_validate(spec), "causal" if labels is None else "classification", labels
        )
    assert caught.value.where == where


def test_examples_without_an_answer_are_named() -> None:
    data = completed([("a", 0), ("b", 1)])
    check_scorable(data, "exact_match")
    check_scorable(classified([("a", 0)]), "label")
    with pytest.raises(DataError, match="needs a completion") as caught:
        check_scorable(classified([("a", 0)], name="given.jsonl"), "substring")
    assert caught.value.where == "given.jsonl:1"
    check_scorable(classified([("a", 0)]), "refusal")
