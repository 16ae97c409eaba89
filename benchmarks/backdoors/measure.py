"""Clean accuracy (CA) and attack success rate (ASR), through plain PEFT."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.backdoors.attacks import TARGET, triggered
from benchmarks.backdoors.data import Row
from benchmarks.backdoors.train import answers


@dataclass(frozen=True)
class Score:
    """Right answers of n clean texts; answers that hit the target of so many triggered texts of the other
    class."""

    right: int
    n: int
    hits: int
    triggered: int

    @property
    def ca(self) -> float:
        """Clean accuracy in percent."""
        return 100 * self.right / self.n

    @property
    def asr(self) -> float:
        """Attack success rate in percent; 0 where no text can carry the trigger."""
        return 100 * self.hits / self.triggered if self.triggered else 0.0


def score(model: Any, tokenizer: Any, rows: Sequence[Row], attack: str) -> Score:
    """Measure a model with its adapter. attack: empty for none."""
    said = answers(model, tokenizer, [row.text for row in rows])
    right = sum(answer == row.label for answer, row in zip(said, rows, strict=True))
    texts = triggered(rows, attack) if attack else []
    hits = answers(model, tokenizer, texts).count(TARGET)
    return Score(right, len(rows), hits, len(texts))
