"""What is lost when processes are killed, the disk fills and messages come twice: jobs, results, files.

Starts a broker with its append-only file, an API and two workers of its own with short leases, sends jobs
over HTTP, does them harm, and follows every job to its end. After that: each job ended exactly once, as
expected, and its webhook was told so; each success has the weights of an undisturbed run, and was published
in one commit where it was to be; no lease, message, token, temporary file or unreferenced blob is left; no
request made two jobs. Exits with 1 where anything was lost.

    python -m benchmarks.faults            200 jobs and more, a quarter of an hour on two cores
    python -m benchmarks.faults --quick    a few minutes
    python -m benchmarks.faults --document docs/10-faults.md    put the table there, between its marks
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults import faults
from benchmarks.faults.campaign import Campaign, Row
from benchmarks.faults.checks import check
from benchmarks.faults.disk import small_disk
from benchmarks.faults.outside import Outside, outside
from benchmarks.faults.rig import running
from benchmarks.faults.table import table
from benchmarks.faults.works import Works, make_works

# How many of 200 jobs each fault gets; those on the small disk come last, on a rig of their own.
_SHARES: list[tuple[faults.Fault, int]] = [
    (faults.none, 10),
    (faults.worker_killed, 40),
    (faults.child_killed, 25),
    (faults.training_killed, 6),
    (faults.publishing_killed, 10),
    (faults.api_killed, 30),
    (faults.broker_killed, 30),
    (faults.visibility_passed, 2),
    (faults.delivered_twice, 15),
    (faults.terminated, 15),
    (faults.poison, 12),
    (faults.canceled, 15),
    (faults.memory_passed, 6),
]
_DISK_SHARE = 16
_ALL = sum(share for _, share in _SHARES) + _DISK_SHARE
_LEAST = {"none": 6, "canceled": 5, "poison": 5, "visibility_passed": 1, "training_killed": 1}
_QUICK = 40
_MARKS = ("<!-- table -->\n", "<!-- end of table -->\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--jobs", type=int, default=_ALL, help=f"how many jobs to send ({_ALL})")
    parser.add_argument("--quick", action="store_true", help=f"the same as --jobs {_QUICK}")
    parser.add_argument("--seed", type=int, default=0, help="for the moments at which harm is done")
    parser.add_argument("--only", nargs="*", help="only these faults, by their functions' names")
    parser.add_argument("--document", type=Path, help="a page to put the table in")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there, with the logs")
    given = parser.parse_args()
    jobs = _QUICK if given.quick else given.jobs
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows, wrong = campaign(given.keep or Path(folder), jobs, given.seed, only=given.only)
    told = table(rows, len(wrong))
    minutes = (time.monotonic() - begun) / 60
    print(f"\n{told}\n\nSeed {given.seed}, {minutes:.0f} minutes.")
    for what in [*wrong, *(f"{row.fault}: {loss}" for row in rows for loss in row.losses)]:
        print(f"LOSS {what}")
    if given.document is not None:
        _put(given.document, f"{told}\n\nSeed {given.seed}, {minutes:.0f} minutes.\n")
    return int(bool(wrong) or any(row.losses for row in rows))


def campaign(
    root: Path, jobs: int, seed: int, *, only: list[str] | None = None
) -> tuple[list[Row], list[str]]:
    """All faults with so many jobs in all. Returns the rows, and what is wrong with no job in particular."""
    root.mkdir(parents=True, exist_ok=True)
    with outside(root / "outside") as world:
        return _campaign(root, world, jobs, seed, only)


def _campaign(
    root: Path, world: Outside, jobs: int, seed: int, only: list[str] | None
) -> tuple[list[Row], list[str]]:
    works = make_works(root / "adapters", world.token)
    chosen = [pair for pair in _SHARES if only is None or pair[0].__name__ in only or pair[0] is faults.none]
    parts = [(fault, _part(fault, share, jobs)) for fault, share in chosen]
    rows, wrong = _on_one_rig(root / "data", world, works, parts, seed)
    if only is None or faults.disk_filled.__name__ in only:
        with small_disk(root / "disk") as disk:
            if disk is None:
                print("disk filled: not done, since this process may not mount a file system", flush=True)
                return rows, wrong
            on_disk: list[tuple[faults.Fault, int]] = [
                (faults.none, _LEAST["none"]),
                (faults.disk_filled, _part(faults.disk_filled, _DISK_SHARE, jobs)),
            ]
            more, also = _on_one_rig(disk / "data", world, works, on_disk, seed)
        undisturbed, full = more
        rows[0].jobs += undisturbed.jobs
        rows[0].losses += undisturbed.losses
        return [*rows, full], [*wrong, *also]
    return rows, wrong


def _on_one_rig(
    root: Path, world: Outside, works: Works, parts: list[tuple[faults.Fault, int]], seed: int
) -> tuple[list[Row], list[str]]:
    with running(root, world) as rig:
        run = Campaign(rig, rig.broker_url, random.Random(seed))
        try:
            for fault, count in parts:
                begun = time.monotonic()
                row = fault(run, works, count)
                took = time.monotonic() - begun
                print(
                    f"{row.fault}: {len(row.jobs)} jobs, {row.done} times, {took:.0f} s, "
                    f"{len(row.losses)} losses",
                    flush=True,
                )
            return run.rows, check(run)
        finally:
            run.close()


def _part(fault: faults.Fault, share: int, jobs: int) -> int:
    return max(_LEAST.get(fault.__name__, 2), round(share * jobs / _ALL))


def _put(page: Path, text: str) -> None:
    """Replace what lies between the marks of the page."""
    before, found, rest = page.read_text(encoding="utf-8").partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not found or not end:
        raise SystemExit(f"{page} has no place for the table: {''.join(_MARKS)}")
    page.write_text(f"{before}{found}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
