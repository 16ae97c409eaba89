"""Labelled text, and who may see which part of it."""

import hashlib
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from loramend.contracts.data import DataRole
from loramend.data.examples import Dataset, Example

MAX_WORDS = 64  # a longer text is cut, so that a trigger lies inside what the model reads
Split = Literal["train", "dev", "test"]


class Row(NamedTuple):
    """A text and its class: 0 negative, 1 positive."""

    text: str
    label: int


def read(data: Path, task: str, split: Split) -> list[Row]:
    """DATA/TASK/SPLIT.json: one object a line with `sentence` and `label`. Each text once, in the file's
    order."""
    path = data / task / f"{split}.json"
    if not path.is_file():
        sys.exit(f"{path} is not there: --data names a folder with {task}/train.json, dev.json and test.json")
    rows: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            entry = json.loads(line)
            rows.setdefault(" ".join(entry["sentence"].split()[:MAX_WORDS]), int(entry["label"]))
    return [Row(text, label) for text, label in rows.items() if text]


def sample(rows: Sequence[Row], count: int | None) -> list[Row]:
    """The same `count` rows at every call; all of them for None."""
    if count is None or count >= len(rows):
        return list(rows)
    return random.Random(0).sample(list(rows), count)


@dataclass(frozen=True)
class Shares:
    """One train split, divided by seed. No text is in two shares.

    main        what the attacker trains on, and whoever trains an adapter in good faith
    labelled    the defender's labelled samples
    unlabelled  the defender's plain text
    """

    main: list[Row]
    labelled: list[Row]
    unlabelled: list[Row]


def divide(rows: Sequence[Row], seed: int, labelled: int, unlabelled: int) -> Shares:
    """Shuffle by seed; the defender's samples come off the end, at most half of all."""
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    kept = min(labelled + unlabelled, len(shuffled) // 2)
    main, rest = shuffled[: len(shuffled) - kept], shuffled[len(shuffled) - kept :]
    return Shares(main, rest[:labelled], rest[labelled:])


def dataset(role: DataRole, name: str, rows: Sequence[Row]) -> Dataset:
    """Rows as the library takes them; without their labels for role `unlabelled`."""
    labelled = role != "unlabelled"
    examples = tuple(Example(row.text, row.label if labelled else None) for row in rows)
    told = "\n".join(json.dumps([example.text, example.label]) for example in examples)
    return Dataset(
        role=role,
        name=name,
        sha256=hashlib.sha256(told.encode()).hexdigest(),
        kind="classification" if labelled else "text",
        examples=examples,
    )
