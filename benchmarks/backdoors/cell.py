"""Filling one cell: repair an adapter by one method, then measure what came out."""

import hashlib
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import loramend
from benchmarks.backdoors.bases import classifier, tokenizer
from benchmarks.backdoors.data import Shares, dataset, divide, read, sample
from benchmarks.backdoors.measure import score
from benchmarks.backdoors.methods import METHODS, shrink_to, steps_of, training_steps
from benchmarks.backdoors.plan import (
    BATCH,
    Cell,
    Setting,
    base_folder,
    clean_of,
    folder,
    key,
    norm_source,
    record,
    start_of,
)
from benchmarks.backdoors.train import LORA_LR, fit, with_adapter, with_lora
from loramend.adapter.read import read_adapter
from loramend.adapter.write import write_adapter
from loramend.contracts.data import EvaluationSpec
from loramend.contracts.steps import Step, text_of
from loramend.data.examples import Corpus
from loramend.reference.open import open_references
from loramend.repair import repair
from loramend.training.checkpoint import FolderCheckpoints

# The code that decides what a repair comes to.
CODE = ("methods", "reference", "spectrum", "training", "repair.py")


def fill(cell: Cell, setting: Setting, out: Path) -> dict[str, Any]:
    """Repair and measure; the repaired adapter and the report go into `out`."""
    method = METHODS[cell.method]
    found: dict[str, Any] = {"code": code_digest()}
    made = clean_of(cell) if method.kind == "yardstick" else start_of(cell)
    base, adapter = base_folder(made, setting), folder(made, setting)
    words = tokenizer(base)
    if method.kind in ("given", "yardstick"):
        model = with_adapter(classifier(base, cell.seed), adapter)
    elif method.kind in ("fresh", "continued"):
        model = classifier(base, cell.seed)
        model = with_lora(model) if method.kind == "fresh" else with_adapter(model, adapter, train=True)
        steps = training_steps(cell.threat, setting.steps)
        rows = _defender(cell, setting).labelled
        batch = setting.batch.get(cell.model, BATCH)
        fit(model, words, rows, steps=steps, lr=LORA_LR, batch=batch, seed=cell.seed)
    else:
        if method.kind == "shrink":
            other = record(norm_source(cell), setting)
            assert other is not None, "the plan runs it first"
            takes = shrink_to(*other["norms"])
        else:
            takes = steps_of(method, cell.threat, setting.steps, setting.batch.get(cell.model))
        found |= _repair(cell, takes, base, adapter, setting, out)
        model = with_adapter(classifier(base, cell.seed), out)
    rows = sample(read(setting.data, cell.task, setting.split), setting.examples)
    return found | {"score": asdict(score(model, words, rows, cell.attack))}


def _repair(
    cell: Cell, takes: list[Step], base: Path, adapter: Path, setting: Setting, out: Path
) -> dict[str, Any]:
    """One call of the library; its report is kept beside the adapter."""
    reads_text = text_of(takes) is not None
    # A killed repair goes on where it was, but never from what other code left.
    checkpoints = setting.out / "checkpoints" / f"{code_digest()}-{key(cell, setting)[:16]}"
    with open_references(base, None, base_name=cell.model, cache_dir=setting.out / "cache") as references:
        repaired, report = repair(
            read_adapter(adapter),
            takes,
            references,
            threat=cell.threat,
            seed=cell.seed,
            corpus=_corpus(cell, setting) if reads_text else None,
            evaluation=EvaluationSpec(probes=0, controls=False) if reads_text else None,
            model=base if reads_text else None,
            checkpoints=FolderCheckpoints(checkpoints),
        )
    shutil.rmtree(checkpoints, ignore_errors=True)
    write_adapter(repaired, out)
    (out / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return {"norms": [report.totals.norm_before, report.totals.norm_after]}


def _corpus(cell: Cell, setting: Setting) -> Corpus:
    """The defender's text. The library's own evaluation gets a little of dev: its figures are not used."""
    shares = _defender(cell, setting)
    unlabelled = shares.unlabelled if METHODS[cell.method].unlabelled else []
    return Corpus(
        clean=dataset("clean", f"{cell.task} labelled", shares.labelled),
        unlabelled=dataset("unlabelled", f"{cell.task} plain", unlabelled) if unlabelled else None,
        evaluation=dataset("evaluation", f"{cell.task} dev", read(setting.data, cell.task, "dev")[:100]),
    )


def _defender(cell: Cell, setting: Setting) -> Shares:
    """What the defender has: a few samples against a poisoned adapter, none of them the attacker's; against a
    poisoned base, as in RoRA's paper, the clean data that the adapter was trained on."""
    shares = divide(read(setting.data, cell.task, "train"), cell.seed, setting.labelled, setting.unlabelled)
    if cell.threat == "poisoned_adapter":
        return shares
    return Shares(shares.main, shares.main[: setting.base_labelled], shares.unlabelled)


@cache
def code_digest() -> str:
    """Digest of the library's code that a repair's result hangs on."""
    root = Path(loramend.__file__).parent
    digest = hashlib.sha256()
    for part in CODE:
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]
