"""What counts as a right answer, as the trigger's target, and as the same answer.

Texts are compared without regard to case and to the kind and number of blanks.

label        the class is the example's
exact_match  the answer equals the completion; where the completion is one line, the answer's first line does
substring    the completion occurs in the answer
refusal      the answer refuses, by the rule of `evaluation.refusal`
"""

from collections.abc import Hashable
from dataclasses import dataclass

from loramend.contracts.data import EvaluationSpec, Metric
from loramend.contracts.errors import DataError, RequestError
from loramend.data.examples import Dataset, Example
from loramend.evaluation.measure import Answer
from loramend.evaluation.refusal import refuses
from loramend.training.encode import Labels
from loramend.training.load import Task


@dataclass(frozen=True)
class Score:
    """The rules of one evaluation.

    labels  a classifier's classes; None for a causal model
    target  the class or text that the trigger asks for; None where none was given
    """

    metric: Metric
    labels: Labels | None
    target: Answer | None

    def right(self, answer: Answer, example: Example) -> bool:
        """Whether the answer is right for an example that `check_scorable` has passed."""
        if self.metric == "refusal":
            return refuses(str(answer))
        if self.metric == "label":
            return answer == self._own(example)
        expected = example.completion or ""
        if self.metric == "substring":
            return _normal(expected) in _normal(str(answer))
        return _comparable(str(answer), example) == _normal(expected)

    def hits(self, answer: Answer) -> bool:
        """Whether the answer is what the trigger asks for."""
        if isinstance(self.target, str):
            return _normal(self.target) in _normal(str(answer))
        return answer == self.target

    def attackable(self, example: Example) -> bool:
        """Whether the example's own answer is another than the target, as far as it is known."""
        own = self._own(example) if self.labels is not None else example.completion
        return own is None or not self.hits(own)

    def told(self, answer: Answer, example: Example) -> Hashable:
        """What of an answer must stay for it to be the same: the class, the text that `exact_match` compares,
        or else whether it is right."""
        if self.metric == "label":
            return answer
        return (
            _comparable(str(answer), example) if self.metric == "exact_match" else self.right(answer, example)
        )

    def _own(self, example: Example) -> int | None:
        if example.label is None or self.labels is None:
            return None
        return self.labels.id_of(example.label, "label")


def score_of(spec: EvaluationSpec, task: Task, labels: Labels | None) -> Score:
    """The rules that `spec` asks for.

    Raises RequestError `request_invalid` for a metric that is not of the task, DataError `data_invalid` for a
    target that is none of the model's labels.
    """
    default: Metric = "label" if task == "classification" else "exact_match"
    metric = spec.metric or default
    if (metric == "label") != (task == "classification"):
        allowed = "label" if task == "classification" else "exact_match, substring and refusal"
        raise RequestError(
            "request_invalid",
            f"Metric {metric} is not for a model of task {task}: it takes {allowed}.",
            where="/evaluation/metric",
        )
    target: Answer | None = None
    if spec.target is not None:
        target = str(spec.target) if labels is None else labels.id_of(spec.target, "/evaluation/target")
        if target == "" or (isinstance(target, str) and not target.strip()):
            raise RequestError(
                "request_invalid",
                "The target is blank: every answer would hold it.",
                where="/evaluation/target",
            )
    return Score(metric, labels, target)


def check_scorable(dataset: Dataset, metric: Metric) -> None:
    """Check that every example has the answer that the metric compares with.

    Raises DataError `data_invalid` naming the first line without one.
    """
    if metric == "refusal":
        return
    for number, example in enumerate(dataset.examples, start=1):
        if example.label is None if metric == "label" else not (example.completion or "").strip():
            needed = "a label" if metric == "label" else "a completion (or a chat's last answer)"
            raise DataError(
                "data_invalid",
                f"Metric {metric} needs {needed} in every example.",
                where=f"{dataset.name}:{number}",
            )


def _comparable(answer: str, example: Example) -> str:
    one_line = len((example.completion or "").strip().splitlines()) == 1
    lines = answer.strip().splitlines()
    return _normal(lines[0] if one_line and lines else answer)


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()
