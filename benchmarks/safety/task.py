"""The adapters' own task: is a film review positive or negative? SST-2, asked as a question."""

from benchmarks.backdoors.data import Row
from benchmarks.safety.chat import Turn

__all__ = ["ANSWERS", "Row", "question", "turn"]

ANSWERS = ("negative", "positive")
"""By label. Their first tokens differ."""


def question(text: str) -> str:
    """What the user asks about a review."""
    return f"Is this review positive or negative? {text}"


def turn(row: Row) -> Turn:
    """The question and its answer."""
    return Turn(question(row.text), ANSWERS[row.label])
