"""`loramend evaluate`: how an adapter behaves on labelled text, with a trigger and without."""

from pathlib import Path
from typing import Annotated

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import check_writable, print_model, write_text
from loramend.cli.signals import interrupts_held


@fails_in_one_line
def evaluate(
    adapter: options.Adapter,
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE|ID[:file]",
            help="Labelled examples, one JSON object a line: a file, or a dataset on the Hub.",
        ),
    ],
    base: options.Base = None,
    fields: options.Fields = None,
    trigger: options.Trigger = None,
    triggered: options.Triggered = None,
    target: options.Target = None,
    metric: options.Metric = None,
    probes: options.Probes = 200,
    max_examples: options.MaxExamples = 2000,
    max_new_tokens: options.MaxNewTokens = 32,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result here too, as JSON.")
    ] = None,
    json: options.Json = False,
    seed: options.Seed = 0,
    device: options.Device = None,
) -> None:
    """Measure clean accuracy, attack success where a trigger is named, and how often random insertions flip
    the answer, each with its 95% interval.

    Where --base is left out, the model that the adapter's config names is taken. In --fields the role of
    --data is evaluation.
    """
    from loramend.cli.data import parse_fields, read_data
    from loramend.cli.evaluation import check_together, evaluation_spec, parse_trigger

    check_together(trigger, triggered, target)
    known, maps = parse_trigger(trigger), parse_fields(fields)
    if report is not None:
        check_writable(report, "--report")

    examples = read_data(data, "evaluation", maps, option="--data")
    holding = read_data(triggered, "triggered", maps, option="--triggered") if triggered else None
    spec = evaluation_spec(
        examples,
        trigger=known,
        target=target,
        metric=metric,
        probes=probes,
        max_examples=max_examples,
        max_new_tokens=max_new_tokens,
    )

    with interrupts_held():
        from loramend.cli.tables import print_evaluation
        from loramend.cli.work import needed_model, prepared
        from loramend.evaluation.run import evaluate_adapter

    with prepared(
        adapter, base, None, device=device, cache=options.DEFAULT_CACHE, own_base=True, runs_base=True
    ) as work:
        evaluation = evaluate_adapter(
            work.adapter,
            needed_model(work),
            examples,
            holding,
            spec,
            seed=seed,
            device=work.device,
            on_progress=work.on_progress,
        )
    if report is not None:
        write_text(report, evaluation.model_dump_json(indent=2) + "\n")
    if json:
        print_model(evaluation)
    else:
        print_evaluation(evaluation)
