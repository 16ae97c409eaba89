"""Filling cells: one adapter a process, every repair of it measured on the same prompts and texts."""

import hashlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.backdoors.bases import quiet
from benchmarks.backdoors.data import read as read_rows
from benchmarks.backdoors.data import sample
from benchmarks.backdoors.records import kept
from benchmarks.safety import pair
from benchmarks.safety.measure import Behaviour, behaviour
from benchmarks.safety.methods import METHODS, repaired
from benchmarks.safety.pair import Place
from benchmarks.safety.prompts import Part, Prompts, read
from benchmarks.safety.task import Row, question
from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.data.examples import Example, Message
from loramend.methods.base import Context
from loramend.reference.open import open_references
from loramend.spectrum.factored import distance, norm
from loramend.training.host import Host, open_host
from loramend.training.session import Session

TASK = "sst-2"
GIVEN, ALIGNED = "given", "aligned"
FORMAT = 1  # raise where the benchmark itself changes what a cell means


@dataclass(frozen=True)
class Setting:
    """One run's choices.

    part     whose prompts and texts are measured
    harmful  prompts, edgy prompts and rows of the task, at most; as many rows of its training part are there
             for a repair that reads clean text
    """

    place: Place
    data: Path
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    part: Part = "test"
    harmful: int = 80
    edgy: int = 20
    rows: int = 200
    records: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One adapter after one method at one strength. method `given`: as it came; `aligned`: no adapter."""

    recipe: str
    seed: int
    method: str
    strength: float = 0.0

    def __str__(self) -> str:
        return f"{self.recipe}/{self.seed}/{self.method}/{self.strength:g}"


def cells(setting: Setting) -> list[Cell]:
    """Every cell of the plan, adapter by adapter."""
    repairs = [
        Cell(recipe, seed, name, strength)
        for seed in setting.seeds
        for recipe in setting.recipes
        for name in (GIVEN, *setting.methods)
        for strength in (METHODS[name].strengths if name in METHODS else (0.0,))
    ]
    # Without an adapter any of them would do.
    return [replace(repairs[0], method=ALIGNED), *repairs]


def key(cell: Cell, setting: Setting) -> str:
    """Digest of what determines the cell's result, but for the library's code."""
    method = METHODS.get(cell.method)
    told = [
        FORMAT,
        str(cell),
        method.step(cell.strength).model_dump(mode="json") if method else None,
        [setting.part, setting.harmful, setting.edgy, setting.rows],
        [setting.place.steps, pair.ALIGNED_LR, setting.place.steps, pair.ADAPTER_LR],
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def record(cell: Cell, setting: Setting) -> dict[str, Any] | None:
    """What the cell holds, here or in the committed records; None where it is not filled."""
    path = _place(cell, setting)
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return kept(setting.records).get(key(cell, setting)) if setting.records else None


def behaviour_of(found: dict[str, Any]) -> list[Behaviour]:
    """What was measured: one a draw."""
    return [Behaviour(**draw) for draw in found["draws"]]


def execute(wanted: Sequence[Cell], setting: Setting, jobs: int) -> bool:
    """Fill what is not filled; True where nothing failed. The pair is made first, by all processors."""
    waiting = [cell for cell in wanted if record(cell, setting) is None]
    if not waiting:
        return True
    rows = read_rows(setting.data, TASK, "train")
    pair.own_answers(setting.place)
    pair.aligned(setting.place)
    by_adapter: dict[tuple[str, int], list[Cell]] = {}
    for cell in waiting:
        by_adapter.setdefault((cell.recipe, cell.seed), []).append(cell)
    # More threads than cores lose to each other.
    threads = max(1, (os.cpu_count() or 1) // min(jobs, len(by_adapter)))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("spawn")
    failed = False
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare, initargs=(threads,)) as pool:
        futures = {pool.submit(_fill, chosen, rows, setting): at for at, chosen in by_adapter.items()}
        for future in as_completed(futures):
            if (error := future.exception()) is not None:
                failed = True
                print(f"{futures[future]}: FAILED, {error!r}", flush=True)
    return not failed


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    quiet()


def _fill(chosen: Sequence[Cell], rows: Sequence[Row], setting: Setting) -> None:
    first = chosen[0]
    folder = pair.adapter(setting.place, rows, first.recipe, first.seed)
    given = read_adapter(folder)
    prompts = read(setting.place.packages, setting.part)
    prompts = replace(prompts, harmful=prompts.harmful[: setting.harmful], edgy=prompts.edgy[: setting.edgy])
    texts = sample(read_rows(setting.data, TASK, setting.part), setting.rows)
    whole = pair.aligned(setting.place)
    host = open_host(whole, given)
    with open_references(
        pair.base(setting.place), whole, cache_dir=setting.place.out / "cache"
    ) as references:
        context = Context(references=references, device=torch.device("cpu"), seed=first.seed)
        session = _session(host, given, sample(rows, setting.rows), first.seed)
        for cell in chosen:
            start = time.monotonic()
            found = _measured(cell, given, context, session, prompts, texts)
            found = {"node": str(cell), **found, "seconds": round(time.monotonic() - start, 1)}
            path = _place(cell, setting)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{cell}: {told(found)}", flush=True)


def _measured(
    cell: Cell, given: Adapter, context: Context, session: Session, prompts: Prompts, texts: Sequence[Row]
) -> dict[str, Any]:
    made = list(_variants(cell, given, context, session))
    return {
        "draws": [asdict(behaviour(session.host, adapter, prompts, texts)) for adapter in made],
        "distance": statistics.fmean(_distance(given, adapter) for adapter in made),
    }


def _session(host: Host, given: Adapter, rows: Sequence[Row], seed: int) -> Session:
    """The clean text that a defender has: questions of the adapter's task."""
    texts = [Example("", messages=(Message("user", question(row.text)),)) for row in rows]
    return Session(
        host=host,
        given=given,
        threat="poisoned_adapter",
        labelled=(),
        texts=texts,
        held_out=(),
        held_out_texts=(),
        digest="",
        seed=seed,
        on_progress=lambda _progress: None,
    )


def _variants(cell: Cell, given: Adapter, context: Context, session: Session) -> Iterator[Adapter | None]:
    method = METHODS.get(cell.method)
    if method is None:
        yield given if cell.method == GIVEN else None
        return
    for draw in range(method.draws):
        step = method.step(cell.strength)
        yield repaired(given, step, replace(context, seed=1000 * draw + context.seed), session)


def _distance(given: Adapter, adapter: Adapter | None) -> float:
    """‖X - ΔW‖_F/‖ΔW‖_F over all modules."""
    if adapter is None:
        return 1.0
    names = given.updates
    moved = sum(float(distance(given.updates[name], adapter.updates[name])) ** 2 for name in names)
    size = sum(float(norm(given.updates[name])) ** 2 for name in names)
    return float((moved / size) ** 0.5)


def told(found: dict[str, Any]) -> str:
    """A record in a few words: the mean over draws."""
    draws = behaviour_of(found)
    refusal, over, right, loss = (
        statistics.fmean(getattr(draw, name) for draw in draws)
        for name in ("refusal", "over_refusal", "accuracy", "loss")
    )
    return (
        f"refuses {refusal:.1f}, over-refuses {over:.1f}, task {right:.1f} (loss {loss:.3f}), "
        f"moved {found['distance']:.2f}, {found['seconds']:.0f} s"
    )


def _place(cell: Cell, setting: Setting) -> Path:
    name = f"{cell.method}-{cell.strength:g}-{key(cell, setting)[:8]}.json"
    return setting.place.out / "cells" / f"{cell.recipe}-{cell.seed}" / name
