"""`loramend repair`: an adapter in, a repaired one and its report out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loramend.cli import options
from loramend.cli.errors import CommandError, fails_in_one_line
from loramend.cli.output import new_folder, write_text


@fails_in_one_line
def repair(
    adapter: options.Adapter,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make for the repaired adapter.")],
    threat: Annotated[
        Literal["poisoned_adapter", "poisoned_base"], typer.Option(help="What is not trusted.")
    ] = "poisoned_adapter",
    step: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE[:key=value,…]",
            help="A step to take; repeat it for several, in order. Without any, the default for the threat.",
        ),
    ] = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the report here too: as a page where FILE ends in .html, otherwise as JSON.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR, if a repair made it.")] = False,
    seed: options.Seed = 0,
    device: options.Device = None,
    cache: options.Cache = options.DEFAULT_CACHE,
) -> None:
    """Repair an adapter and say what changed, where, and how sure one can be.

    Where a step needs the base model and --base is left out, the one that the adapter's config names is
    taken. DIR gets the repaired adapter, report.json and report.html, a model card, and the adapter as it
    came in DIR/original. It appears whole or not at all.
    """
    from loramend.cli.steps import StepSyntaxError, parse_step
    from loramend.contracts.steps import default_recipe, needs_of

    try:
        steps = [parse_step(text) for text in step or []]
    except StepSyntaxError as error:
        raise typer.BadParameter(str(error), param_hint="'--step'") from None
    if report is not None and (report.is_dir() or not report.absolute().parent.is_dir()):
        raise CommandError("output_exists", f"--report {report} is not a file that can be written")

    with new_folder(out, replace=force) as folder:
        from loramend import repair as pipeline
        from loramend.cli.tables import print_report
        from loramend.cli.work import prepared
        from loramend.result import REPORT, REPORT_HTML, write_result

        own_base = not steps or "base" in needs_of(steps)
        with prepared(adapter, base, aligned, device=device, cache=cache, own_base=own_base) as work:
            if not steps:
                have = work.references
                steps = default_recipe(threat, base=have.has_base, aligned=have.has_aligned)
            repaired, told = pipeline.repair(
                work.adapter,
                steps,
                work.references,
                threat=threat,
                seed=seed,
                device=work.device,
                on_progress=work.on_progress,
                source=work.source,
            )
            told = write_result(repaired, told, work.folder, folder)
        if report is not None:
            form = REPORT_HTML if report.suffix.lower() == ".html" else REPORT
            write_text(report, (folder / form).read_text(encoding="utf-8"))
    print_report(told)
    typer.echo(f"Repaired adapter, report.json and report.html are in {out}")
