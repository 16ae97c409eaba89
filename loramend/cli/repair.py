"""`loramend repair`: an adapter in, a repaired one and its report out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loramend.cli import options
from loramend.cli.errors import CommandError, fails_in_one_line
from loramend.cli.output import new_folder, write_text
from loramend.cli.signals import interrupts_held


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
    clean: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|ID[:file]",
            help="Clean examples of the adapter's task with their answers, one JSON object a line: text and "
            "label, prompt and completion, or chat messages. A file, or a dataset on the Hub.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|ID[:file]",
            help="Clean text of the same kind; answers are not read.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|ID[:file]",
            help="Clean examples to judge the repair's strength by, instead of a share of --clean.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    validation_share: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.9, help="That share, held out of training.", rich_help_panel=options.TEXT
        ),
    ] = 0.2,
    fields: options.Fields = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|ID[:file]",
            help="Labelled examples to measure on before and after; none is learned.",
            rich_help_panel=options.MEASURE,
        ),
    ] = None,
    trigger: options.Trigger = None,
    triggered: options.Triggered = None,
    target: options.Target = None,
    metric: options.Metric = None,
    probes: options.Probes = 200,
    max_examples: options.MaxExamples = 2000,
    max_new_tokens: options.MaxNewTokens = 32,
    controls: Annotated[
        bool,
        typer.Option(
            help="Measure a fresh, a continued and a shrunken adapter beside the repair.",
            rich_help_panel=options.MEASURE,
        ),
    ] = True,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where training leaves its state, to go on if it is stopped.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
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
    taken. With --clean or --unlabelled and no --step, the default is to learn from that text. DIR gets the
    repaired adapter, report.json and report.html, a model card, and the adapter as it came in DIR/original.
    It appears whole or not at all.
    """
    from loramend.cli.data import parse_fields, read_corpus
    from loramend.cli.evaluation import check_together, evaluation_spec, parse_trigger
    from loramend.cli.steps import StepSyntaxError, parse_step
    from loramend.contracts.step_base import TextNeed
    from loramend.contracts.steps import default_recipe, needs_of, text_of

    try:
        steps = [parse_step(text) for text in step or []]
    except StepSyntaxError as error:
        raise typer.BadParameter(str(error), param_hint="'--step'") from None
    check_together(trigger, triggered, target)
    if evaluate is None and (trigger or triggered):
        raise typer.BadParameter("a trigger is measured on the examples of --evaluate: give them")
    if validation is not None and clean is None and unlabelled is None:
        raise typer.BadParameter("--validation goes with --clean or --unlabelled")
    known, maps = parse_trigger(trigger), parse_fields(fields)
    if report is not None and (report.is_dir() or not report.absolute().parent.is_dir()):
        raise CommandError("output_exists", f"--report {report} is not a file that can be written")

    with new_folder(out, replace=force) as folder:
        with interrupts_held():
            from loramend import repair as pipeline
            from loramend.cli.tables import print_report
            from loramend.cli.work import prepared
            from loramend.result import REPORT, REPORT_HTML, write_result
            from loramend.training.checkpoint import FolderCheckpoints

        corpus = read_corpus(
            {
                "clean": clean,
                "unlabelled": unlabelled,
                "validation": validation,
                "evaluation": evaluate,
                "triggered": triggered,
            },
            maps,
            validation_share=validation_share,
        )
        spec = None
        if corpus.evaluation is not None:
            spec = evaluation_spec(
                corpus.evaluation,
                trigger=known,
                target=target,
                metric=metric,
                probes=probes,
                max_examples=max_examples,
                max_new_tokens=max_new_tokens,
                controls=controls,
            )
        text: TextNeed | None = "clean" if corpus.clean else "text" if corpus.unlabelled else None
        runs_base = spec is not None or (text_of(steps) if steps else text) is not None
        own_base = not steps or "base" in needs_of(steps) or runs_base
        with prepared(
            adapter, base, aligned, device=device, cache=cache, own_base=own_base, runs_base=runs_base
        ) as work:
            if not steps:
                have = work.references
                steps = default_recipe(threat, base=have.has_base, aligned=have.has_aligned, text=text)
            repaired, told = pipeline.repair(
                work.adapter,
                steps,
                work.references,
                threat=threat,
                seed=seed,
                device=work.device,
                on_progress=work.on_progress,
                source=work.source,
                corpus=corpus,
                evaluation=spec,
                model=work.model,
                checkpoints=FolderCheckpoints(checkpoints) if checkpoints else None,
            )
            told = write_result(repaired, told, work.folder, folder)
        if report is not None:
            form = REPORT_HTML if report.suffix.lower() == ".html" else REPORT
            write_text(report, (folder / form).read_text(encoding="utf-8"))
    print_report(told)
    typer.echo(f"Repaired adapter, report.json and report.html are in {out}")
