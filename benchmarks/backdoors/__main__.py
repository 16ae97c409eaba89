"""Makes backdoored adapters and base models, repairs them with every method, and writes what came out.

    python -m benchmarks.backdoors --data DIR --out DIR            the whole plan: hours
    python -m benchmarks.backdoors --data DIR --out DIR --quick    7 to 16 minutes on two cores
    python -m benchmarks.backdoors … --list --only '*/insent/0/*'  what there is to do, and what is done

DIR holds a folder a task with train.json, dev.json and test.json: `sentence` and `label` a line. What a run
made is kept under --out and not made again; a run that was stopped goes on where it was. The test split is
read by the measurement alone: attacks are gated on dev, and --dev measures there too.

Tables and figures of all that is filled go to tables.md under --out, and with --document into that document,
between its markers:

    python -m benchmarks.backdoors --data DIR --out DIR --document docs/07-backdoors.md \\
        --records docs/results/backdoors.jsonl

With --records a cell that the file holds is taken from there: that goes on with what was measured elsewhere.
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.backdoors.attacks import ATTACKS, attack_of
from benchmarks.backdoors.bases import minilm, plain_folder, quiet
from benchmarks.backdoors.figures import draw
from benchmarks.backdoors.methods import METHODS, THREATS
from benchmarks.backdoors.plan import Cell, Setting, cells, key, record
from benchmarks.backdoors.records import keep
from benchmarks.backdoors.schedule import execute, in_order, missed, told
from benchmarks.backdoors.tables import page, results, write

LLAMA_BATCH = 8  # 135M parameters on a CPU: a step of 32 takes tens of seconds
QUICK_METHODS = frozenset(
    (
        "given",
        "yardstick",
        "recipe",
        "clean_subspace",
        "paper",
        "fresh_lora",
        "continued",
        "shrink",
        "intruders",
    )
)
DEFAULT_ATTACKS = ("badnet", "insent", "style")
ATTACK_HELP = f"{', '.join(ATTACKS)}, or a trigger of your own as KIND:TEXT, such as 'prefix:so it goes ,'"


def _attack(name: str) -> str:
    """An attack's name, once it is known to be one."""
    try:
        attack_of(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(
        prog="benchmarks.backdoors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--data", type=Path, required=True, help="folder of tasks")
    out.add_argument("--out", type=Path, required=True, help="where everything made is kept")
    out.add_argument("--quick", action="store_true", help="one task, one seed, short training")
    out.add_argument("--dev", action="store_true", help="measure on the dev split")
    out.add_argument("--only", nargs="+", metavar="GLOB", help="cells: model/threat/task/attack/seed/method")
    out.add_argument("--jobs", type=int, default=2, help="single-threaded processes at a time")
    out.add_argument("--list", action="store_true", help="show the cells and run nothing")
    out.add_argument("--tables", action="store_true", help="write tables of what is there and run nothing")
    out.add_argument("--document", type=Path, help="put tables into this file, figures beside it")
    out.add_argument("--records", type=Path, help="file of filled cells: read first, added to at the end")
    plan = out.add_argument_group("the plan")
    plan.add_argument("--bert", type=Path, metavar="FOLDER", help="BERT-type model, MiniLM-L6 unless given")
    plan.add_argument(
        "--llama",
        type=Path,
        metavar="PATH",
        help="Llama-type model: a folder, or a .gguf file (needs the package gguf)",
    )
    plan.add_argument("--threats", nargs="+", choices=THREATS)
    plan.add_argument("--tasks", nargs="+", metavar="TASK")
    plan.add_argument("--attacks", nargs="+", metavar="ATTACK", type=_attack, help=ATTACK_HELP)
    plan.add_argument("--seeds", nargs="+", type=int)
    plan.add_argument("--methods", nargs="+", choices=list(METHODS))
    plan.add_argument("--source", metavar="TASK", help="what poisoned bases are poisoned on")
    plan.add_argument("--steps", type=int, help="of a repair's training")
    plan.add_argument("--attack-steps", type=int, help="of an attack's training")
    plan.add_argument("--base-steps", type=int, help="of a poisoned base's training")
    plan.add_argument("--examples", type=int, help="measured at most")
    plan.add_argument("--labelled", type=int, default=100)
    plan.add_argument("--unlabelled", type=int, help="plain texts beside the labelled samples")
    plan.add_argument("--base-labelled", type=int, help="labelled samples under poisoned_base; else all")
    plan.add_argument("--gate", type=float, default=95.0, help="percent an attack must reach on dev")
    return out


def setting_of(args: argparse.Namespace) -> Setting:
    """The run's setting: the full plan or the quick one, as the options change it."""
    quick = args.quick
    bases = {"bert": args.bert or minilm()}
    if args.llama is not None:
        bases["llama"] = plain_folder(args.llama, args.out / "models" / args.llama.stem)
    attack_steps = args.attack_steps or (80 if quick else 300)
    return Setting(
        data=args.data,
        out=args.out,
        bases=bases,
        threats=tuple(args.threats or THREATS),
        tasks=tuple(args.tasks or (("sst-2",) if quick else ("sst-2", "cr"))),
        attacks=tuple(args.attacks or (("insent",) if quick else DEFAULT_ATTACKS)),
        seeds=tuple(args.seeds or ((0,) if quick else (0, 1, 2))),
        methods=tuple(
            args.methods or [name for name, method in METHODS.items() if not quick or name in QUICK_METHODS]
        ),
        split="dev" if args.dev else "test",
        source=args.source or ("cr" if quick else "imdb"),
        attack_steps=attack_steps,
        base_steps=args.base_steps or args.attack_steps or (80 if quick else 400),
        gate=args.gate,
        batch={"llama": LLAMA_BATCH},
        steps=args.steps or (60 if quick else None),
        labelled=args.labelled,
        unlabelled=args.unlabelled if args.unlabelled is not None else (500 if quick else 1000),
        base_labelled=args.base_labelled or (1000 if quick else None),
        examples=args.examples or (400 if quick else None),
        records=args.records,
    )


def check(setting: Setting) -> None:
    """Refuse what cannot be run, before anything is."""
    for task in {*setting.tasks, *([setting.source] if "poisoned_base" in setting.threats else [])}:
        if not (setting.data / task / "train.json").is_file():
            sys.exit(f"{setting.data / task} has no train.json: --data names a folder of tasks")


def show(chosen: Sequence[Cell], setting: Setting) -> None:
    """The cells and what they hold."""
    for node in in_order(chosen, setting):
        found = record(node, setting)
        print(f"{node}: {told(found) if found is not None else 'to do'}")


def write_out(plan: Sequence[Cell], setting: Setting, titles: dict[str, str], document: Path | None) -> None:
    """Print tables of all that is filled; write them, with figures, into the document, else under --out."""
    place = document.parent if document else setting.out
    figures: dict[str, str] = {}
    for model in setting.bases:
        for threat in setting.threats:
            if found := results(plan, setting, model, threat):
                name = f"{model}-{threat}"
                figures[name] = f"figures/backdoors-{name.replace('_', '-')}.svg"
                draw(found, threat, place / figures[name])
    generated = page(plan, setting, titles, figures)
    for node, asr in missed(plan, setting).items():
        generated += f"\n{node} reached {asr:.1f}% on dev and is left out: {setting.gate:g}% is the gate.\n"
    if document:
        write(document, generated)
    else:
        (setting.out / "tables.md").write_text(generated, encoding="utf-8")
    print(generated)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where something failed."""
    args = parser().parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    quiet()
    setting = setting_of(args)
    check(setting)
    plan = cells(setting)
    if not plan:
        sys.exit(f"nothing to do: bases are poisoned on {setting.source}, and no task or method is left")
    chosen = [c for c in plan if not args.only or any(fnmatchcase(str(c), glob) for glob in args.only)]
    if args.list:
        show(chosen, setting)
        return 0
    done = args.tables or execute(chosen, setting, args.jobs)
    if args.records:
        filled = {key(cell, setting): found for cell in plan if (found := record(cell, setting)) is not None}
        keep(args.records, filled)
    titles = {"bert": args.bert.name if args.bert else "MiniLM-L6 (BERT)"}
    if args.llama is not None:
        titles["llama"] = f"{args.llama.stem} (Llama)"
    write_out(plan, setting, titles, args.document)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
