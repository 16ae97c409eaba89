"""What a step that learns from text works with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loramend.adapter.model import Adapter
from loramend.contracts.job import Progress
from loramend.contracts.step_base import Threat
from loramend.data.examples import Example
from loramend.training.host import Host


class Checkpoints(Protocol):
    """Where a training run leaves its state, and finds it again after its process died."""

    def load(self, key: str) -> Path | None:
        """The newest checkpoint of the run with that key; None where there is none."""
        ...

    def save(self, key: str, path: Path) -> None:
        """Keep the file at `path` as that run's newest checkpoint. The file may be moved away."""
        ...


@dataclass(frozen=True)
class Session:
    """One repair's model and text.

    host        runs the base model with any adapter mounted
    given       the adapter as the repair was given it, before its first step: the teacher
    labelled    clean examples with their answers, to train on
    texts       all clean examples to learn from, `labelled` among them
    held_out    labelled examples kept for calibration
    held_out_texts  clean texts kept for calibration, `held_out` among them
    digest      sha256 over the data files and the split, for checkpoints
    """

    host: Host
    given: Adapter
    threat: Threat
    labelled: Sequence[Example]
    texts: Sequence[Example]
    held_out: Sequence[Example]
    held_out_texts: Sequence[Example]
    digest: str
    seed: int
    on_progress: Callable[[Progress], None]
    checkpoints: Checkpoints | None = None
