"""Running a plan: each node in one of a few single-threaded processes, as soon as what it needs is there."""

import json
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from benchmarks.backdoors.bases import quiet
from benchmarks.backdoors.cell import fill
from benchmarks.backdoors.make import make
from benchmarks.backdoors.measure import Score
from benchmarks.backdoors.plan import Cell, Made, Node, Setting, folder, needs, record


def execute(wanted: Sequence[Node], setting: Setting, jobs: int) -> bool:
    """Run the nodes, and what they need, that have not run yet; True where none failed.

    Nodes start in the order given. What waits for an attack that missed its gate, or for a node that failed,
    is left out.
    """
    waiting = [node for node in in_order(wanted, setting) if record(node, setting) is None]
    total, failed = len(waiting), 0
    lost: set[Node] = set()
    running: dict[Future[dict[str, Any]], Node] = {}
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    start = time.monotonic()
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare) as pool:
        try:
            while waiting or running:
                for node in list(waiting):  # each after what it needs
                    if _out_of_reach(node, setting, lost):
                        lost.add(node)
                        waiting.remove(node)
                    elif record(node, setting) is not None:  # another run over the same folder was first
                        waiting.remove(node)
                ready = [node for node in waiting if _ready(node, setting)]
                for node in ready[: jobs - len(running)]:
                    waiting.remove(node)
                    running[pool.submit(run, node, setting)] = node
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    node = running.pop(future)
                    place = (
                        f"[{total - len(waiting) - len(running)}/{total} {time.monotonic() - start:.0f} s]"
                    )
                    if (error := future.exception()) is not None:
                        failed += 1
                        lost.add(node)
                        traceback.print_exception(error)
                        print(f"{place} {node}: FAILED", flush=True)
                    else:
                        print(f"{place} {node}: {told(future.result())}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed == 0


def in_order(wanted: Sequence[Node], setting: Setting) -> list[Node]:
    """The nodes, each after all it needs; a cell that is filled needs nothing."""
    order: dict[Node, None] = {}

    def add(node: Node) -> None:
        if node not in order:
            filled = isinstance(node, Cell) and record(node, setting) is not None
            for need in [] if filled else needs(node, setting):
                add(need)
            order[node] = None

    for node in wanted:
        add(node)
    return list(order)


def usable(found: dict[str, Any] | None) -> bool:
    """Whether a node has run and, if it is an attack, reached its gate."""
    return found is not None and bool(found.get("passed", True))


def told(found: dict[str, Any]) -> str:
    """A node's record in a few words."""
    score = Score(**(found["score"] if "score" in found else found["dev"]))
    gate = "" if usable(found) else ", missed the gate"
    on = "" if "score" in found else " on dev"
    return f"CA {score.ca:.1f} ASR {score.asr:.1f}{on}{gate}, {found['seconds']:.0f} s"


def run(node: Node, setting: Setting) -> dict[str, Any]:
    """Run one node in this process; its folder appears whole, or not at all."""
    place = folder(node, setting)
    place.parent.mkdir(parents=True, exist_ok=True)
    out = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    start = time.monotonic()
    try:
        found = make(node, setting, out) if isinstance(node, Made) else fill(node, setting, out)
        found = {"node": str(node), **found, "seconds": round(time.monotonic() - start, 1)}
        (out / "record.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        if not place.exists():  # another run over the same folder may have been first
            out.replace(place)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return found


def _prepare() -> None:
    torch.set_num_threads(1)  # two threads lose to each other as soon as another process runs
    quiet()


def _ready(node: Node, setting: Setting) -> bool:
    return all(usable(record(need, setting)) for need in needs(node, setting))


def _out_of_reach(node: Node, setting: Setting, lost: set[Node]) -> bool:
    """Whether the node can never run: something it needs is lost, or is an attack that missed its gate."""
    for need in needs(node, setting):
        found = record(need, setting)
        if need in lost or (found is not None and not usable(found)):
            return True
    return False


def missed(cells: Sequence[Cell], setting: Setting) -> dict[str, float]:
    """Attacks of the plan that did not reach the gate, and what they reached on dev."""
    out: dict[str, float] = {}
    for node in in_order(cells, setting):
        found = record(node, setting)
        if isinstance(node, Made) and found is not None and not usable(found):
            out[str(node)] = float(found["asr"])
    return out
