"""What a run consists of: things to make, cells to fill, what each waits for and where it is kept.

Everything is kept under a name that ends in a digest of what determines it, so that a rerun goes on where
the last one ended, and a changed setting makes new files beside the old ones.
"""

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchmarks.backdoors.attacks import attack_of
from benchmarks.backdoors.bases import fingerprint
from benchmarks.backdoors.data import Split
from benchmarks.backdoors.methods import METHODS, steps_of, training_steps
from benchmarks.backdoors.records import kept
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import Step

MadeKind = Literal["clean_adapter", "poisoned_adapter", "poisoned_base", "plain_adapter"]
BATCH = 32
FORMAT = 1  # raise where the benchmark itself changes what a cell means


@dataclass(frozen=True)
class Setting:
    """One run's choices.

    bases         sound base models: a name of ours and the folder
    source        the task that poisoned bases are poisoned on
    split         what cells are measured on; the gate always uses dev
    attack_steps  of an adapter's training; base_steps of a base's; up to `rounds` times until the attack
                  reaches `gate` percent
    steps         of a repair's training; None: the step's default
    batch         texts a training step, where a base's is not BATCH
    base_labelled labelled samples under poisoned_base; None: all that the adapter was trained on
    examples      measured at most; None: the whole split
    records       file of cells that were filled before, wherever that was
    """

    data: Path
    out: Path
    bases: Mapping[str, Path]
    threats: tuple[Threat, ...]
    tasks: tuple[str, ...]
    attacks: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    split: Split = "test"
    source: str = "imdb"
    attack_steps: int = 300
    base_steps: int = 400
    rounds: int = 3
    gate: float = 95.0
    steps: int | None = None
    batch: Mapping[str, int] = field(default_factory=dict)
    labelled: int = 100
    unlabelled: int = 1000
    base_labelled: int | None = None
    examples: int | None = None
    records: Path | None = None


@dataclass(frozen=True)
class Made:
    """A model or adapter that repairs start from. attack: empty for clean_adapter."""

    kind: MadeKind
    model: str
    task: str
    attack: str
    seed: int

    def __str__(self) -> str:
        return "/".join(
            part for part in ("made", self.model, self.kind, self.task, self.attack, str(self.seed)) if part
        )


@dataclass(frozen=True)
class Cell:
    """One method against one attack."""

    model: str
    threat: Threat
    task: str
    attack: str
    seed: int
    method: str

    def __str__(self) -> str:
        return f"{self.model}/{self.threat}/{self.task}/{self.attack}/{self.seed}/{self.method}"


Node = Made | Cell


def cells(setting: Setting) -> list[Cell]:
    """Every cell of the plan: ablations last, and seed by seed, so that a run cut short is still a table; of
    a seed those first that wait for most, one thing after another."""
    every = [
        Cell(model, threat, task, attack, seed, name)
        for seed in setting.seeds
        for model in setting.bases
        for threat in setting.threats
        for task in setting.tasks
        for attack in setting.attacks
        for name in setting.methods
        if threat in METHODS[name].threats
        and (threat == "poisoned_adapter" or task != setting.source)  # a base is poisoned on another task
    ]
    seeds = list(setting.seeds)
    return sorted(
        every,
        key=lambda cell: (METHODS[cell.method].ablation, seeds.index(cell.seed), -_chain(cell, setting)),
    )


def _chain(node: Node, setting: Setting) -> int:
    """How many nodes run one after another until this one has."""
    return 1 + max((_chain(need, setting) for need in needs(node, setting)), default=0)


def start_of(cell: Cell) -> Made:
    """The adapter that is repaired."""
    kind: MadeKind = "poisoned_adapter" if cell.threat == "poisoned_adapter" else "plain_adapter"
    return Made(kind, cell.model, cell.task, cell.attack, cell.seed)


def clean_of(cell: Cell) -> Made:
    """The adapter trained without poison on the sound base."""
    return Made("clean_adapter", cell.model, cell.task, "", cell.seed)


def base_made(made: Made, setting: Setting) -> Made | None:
    """The poisoned base that a plain adapter is for; None where the base is sound."""
    if made.kind != "plain_adapter":
        return None
    return Made("poisoned_base", made.model, setting.source, made.attack, made.seed)


def needs(node: Node, setting: Setting) -> list[Node]:
    """What must be there before the node can run."""
    if isinstance(node, Made):
        base = base_made(node, setting)
        return [base] if base else []
    if METHODS[node.method].kind == "yardstick":
        return [clean_of(node), *needs(start_of(node), setting)]
    wanted: list[Node] = [start_of(node)]
    if METHODS[node.method].kind == "shrink":
        wanted.append(norm_source(node))
    return wanted


def norm_source(cell: Cell) -> Cell:
    """The repair whose norm the control `shrink` takes."""
    return Cell(cell.model, cell.threat, cell.task, cell.attack, cell.seed, "clean_subspace")


def base_folder(made: Made, setting: Setting) -> Path:
    """The folder of the base model that the adapter is for, or that a poisoned base starts from."""
    base = base_made(made, setting)
    return folder(base, setting) / "model" if base else setting.bases[made.model]


def folder(node: Node, setting: Setting) -> Path:
    """Where the node's files are, once it has run."""
    if isinstance(node, Made):
        return setting.out / "made" / node.model / node.kind / f"{_plain(node)}-{key(node, setting)[:8]}"
    place = setting.out / "cells" / node.model / node.threat
    return place / _plain(node) / f"{node.method}-{key(node, setting)[:8]}"


def _plain(node: Node) -> str:
    """Task, attack and seed as a part of a path. A trigger may be any text: the key tells the rest."""
    attack = re.sub(r"[^\w-]+", "-", node.attack)[:40]
    return "-".join(part for part in (node.task, attack, str(node.seed)) if part)


def record(node: Node, setting: Setting) -> dict[str, Any] | None:
    """What the node's run found, here or, for a cell, in the records; None where it has not run."""
    path = folder(node, setting) / "record.json"
    if not path.is_file():
        if isinstance(node, Cell) and setting.records is not None:
            return kept(setting.records).get(key(node, setting))
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def key(node: Node, setting: Setting) -> str:
    """Digest of everything that determines the node's result, but for the code."""
    told = json.dumps([FORMAT, str(node), _determinants(node, setting)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _determinants(node: Node, setting: Setting) -> dict[str, Any]:
    if isinstance(node, Made):
        base = base_made(node, setting)
        return {
            "base": key(base, setting) if base else _fingerprint(setting.bases[node.model]),
            "attack": _signature(node.attack),
            "data": _digest(setting.data / node.task / "train.json"),
            "batch": setting.batch.get(node.model, BATCH),
            "defender": [setting.labelled, setting.unlabelled],
            "steps": setting.base_steps if node.kind == "poisoned_base" else setting.attack_steps,
            # Neither a clean adapter nor a plain one is trained until an attack works.
            "gate": [setting.gate, setting.rounds] if node.kind.startswith("poisoned") else None,
        }
    method = METHODS[node.method]
    takes = (
        steps_of(method, node.threat, setting.steps, setting.batch.get(node.model))
        if method.kind == "steps"
        else []
    )
    trains = method.kind in ("fresh", "continued")
    return {
        "needs": [key(need, setting) for need in needs(node, setting)],
        "steps": [options(step) for step in takes],
        "training_steps": training_steps(node.threat, setting.steps) if trains else None,
        "unlabelled": method.unlabelled,
        "base_labelled": setting.base_labelled if node.threat == "poisoned_base" else None,
        "measured": [_digest(setting.data / node.task / f"{setting.split}.json"), setting.examples],
        "attack": _signature(node.attack),
    }


def options(step: Step) -> dict[str, Any]:
    """The step as a key tells it: without what is off and off by default, and what is named after such an
    option. So one that a step gains later, and that changes nothing until it is set, changes no key."""
    fields = type(step).model_fields
    told = step.model_dump(mode="json")
    off = [name for name, value in told.items() if not value and value == fields[name].default]
    silent = tuple(f"{name}_" for name in off)
    return {name: value for name, value in told.items() if name not in off and not name.startswith(silent)}


def _signature(attack: str) -> str | None:
    """What the attack does to a sentence: it changes where the attack is changed."""
    return (
        attack_of(attack)("this is the plot of a film that was made for you", random.Random(0))
        if attack
        else None
    )


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _fingerprint(base: Path) -> str:
    return fingerprint(base)
