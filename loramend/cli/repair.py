"""`loramend repair`: an adapter in, a repaired one and its report out."""

from pathlib import Path
from typing import Annotated

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import check_writable, new_folder, print_model, write_text
from loramend.cli.signals import interrupts_held
from loramend.cli.signing import check_sign_key


@fails_in_one_line
def repair(
    adapter: options.Adapter,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make for the repaired adapter.")],
    threat: options.Threat = "poisoned_adapter",
    step: options.Step = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    clean: options.Clean = None,
    unlabelled: options.Unlabelled = None,
    validation: options.Validation = None,
    validation_share: options.ValidationShare = 0.2,
    fields: options.Fields = None,
    evaluate: options.Evaluate = None,
    trigger: options.Trigger = None,
    triggered: options.Triggered = None,
    target: options.Target = None,
    metric: options.Metric = None,
    probes: options.Probes = 200,
    max_examples: options.MaxExamples = 2000,
    max_new_tokens: options.MaxNewTokens = 32,
    controls: options.Controls = True,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where training leaves its state, to go on if it is stopped.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    bank: options.Bank = None,
    report: options.Report = None,
    sign_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Private EC key (PEM) to sign the result with; see verify."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR, if a repair made it.")] = False,
    json: options.Json = False,
    seed: options.Seed = 0,
    device: options.Device = None,
    cache: options.Cache = options.DEFAULT_CACHE,
) -> None:
    """Repair an adapter and say what changed, where, and how sure one can be.

    Where a step needs the base model and --base is left out, the one that the adapter's config names is
    taken. With --clean or --unlabelled and no --step, the default is to learn from that text. DIR gets the
    repaired adapter, its report as .json, .html and .sarif, a model card, and the adapter as it came in
    DIR/original. It appears whole or not at all.
    """
    from loramend.cli.data import parse_fields, read_corpus
    from loramend.cli.evaluation import check_texts, check_together, evaluation_spec, parse_trigger
    from loramend.cli.steps import parse_steps
    from loramend.contracts.step_base import TextNeed
    from loramend.contracts.steps import default_recipe, needs_of, text_of

    steps = parse_steps(step)
    check_together(trigger, triggered, target)
    check_texts(clean, unlabelled, validation, evaluate, trigger or triggered)
    known, maps = parse_trigger(trigger), parse_fields(fields)
    if report is not None:
        check_writable(report, "--report")
    if sign_key is not None:
        check_sign_key(sign_key)

    with new_folder(out, replace=force) as folder:
        with interrupts_held():
            from loramend import repair as pipeline
            from loramend.bank.file import read_bank
            from loramend.cli.tables import print_report
            from loramend.cli.work import prepared
            from loramend.result import report_text, write_result
            from loramend.signing.sign import sign_folder
            from loramend.training.checkpoint import FolderCheckpoints

        opened = read_bank(bank) if bank is not None else None
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
                bank=opened,
            )
            told = write_result(repaired, told, work.folder, folder)
            if sign_key is not None:
                sign_folder(folder, sign_key, name=out.resolve().name)
        if report is not None:
            write_text(report, report_text(told, report.name))
    if json:
        print_model(told)
        return
    print_report(told)
    typer.echo(f"Repaired adapter, report.json and report.html are in {out}")
    if sign_key is not None:
        typer.echo(f"Signed: loramend verify {out} --key PUBLIC_KEY")
