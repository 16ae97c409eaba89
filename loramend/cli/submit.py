"""`loramend submit`: an adapter sent to a server, to be repaired or inspected there."""

import json as stdlib_json
from pathlib import Path
from typing import Annotated

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import print_json

_PUBLISH = "Publishing"
_WEBHOOK = "Being told"


@fails_in_one_line
def submit(
    adapter: options.Adapter,
    inspect: Annotated[bool, typer.Option("--inspect", help="Only measure; repair nothing.")] = False,
    threat: options.Threat = "poisoned_adapter",
    step: options.Step = None,
    base: options.ServerModel = None,
    aligned: options.ServerModel = None,
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
    publish: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Push the result to this repository of the Hub.", rich_help_panel=_PUBLISH
        ),
    ] = None,
    private: Annotated[bool, typer.Option(help="As a private one.", rich_help_panel=_PUBLISH)] = True,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="As a pull request.", rich_help_panel=_PUBLISH)
    ] = False,
    send_hub_token: Annotated[
        bool,
        typer.Option(
            "--send-hub-token",
            help="Send your own Hub token (HF_TOKEN, or that of `hf auth login`) for this job alone.",
            rich_help_panel=_PUBLISH,
        ),
    ] = False,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="POST there when the job has ended, signed.", rich_help_panel=_WEBHOOK
        ),
    ] = None,
    webhook_secret: Annotated[
        str | None,
        typer.Option(
            envvar="LORAMEND_WEBHOOK_SECRET",
            metavar="whsec_…",
            help="What signs it, known to the receiver: whsec_ and 24 to 64 random bytes in base64.",
            rich_help_panel=_WEBHOOK,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Follow it, then pull the repaired adapter into this new folder."),
    ] = None,
    json: options.Json = False,
    seed: options.Seed = 0,
    server: options.Server = options.DEFAULT_SERVER,
    key: options.Key = None,
) -> None:
    """Send an adapter to a loramend server. What is a file or folder here is uploaded; Hub IDs are fetched by
    the server.

    With --json the job is printed: as it was accepted or, with --watch or --out, as it ended.
    """
    from loramend.cli.client.address import check_server
    from loramend.cli.client.connect import connected
    from loramend.cli.client.jobs import create_job, get_job
    from loramend.cli.data import parse_fields
    from loramend.cli.evaluation import check_texts, check_together, evaluation_fields, parse_trigger
    from loramend.cli.output import check_free
    from loramend.cli.pull import pull_adapter
    from loramend.cli.sending import Sending, hub_token, model_reference
    from loramend.cli.steps import parse_steps
    from loramend.cli.watching import until_ended

    steps = parse_steps(step)
    check_together(trigger, triggered, target)
    check_texts(clean, unlabelled, validation, evaluate, trigger or triggered)
    known, maps = parse_trigger(trigger), parse_fields(fields)
    repairing = [step, clean, unlabelled, validation, evaluate, publish, out]
    if inspect and any(repairing):
        raise typer.BadParameter(
            "an inspection takes no --step, text, --publish or --out", param_hint="'--inspect'"
        )
    if webhook is not None and not webhook_secret:
        raise typer.BadParameter(
            "a webhook is signed: give --webhook-secret or LORAMEND_WEBHOOK_SECRET, such as one made with "
            'echo "whsec_$(openssl rand -base64 32)"',
            param_hint="'--webhook'",
        )
    if out is not None:
        check_free(out.expanduser().resolve(), replace=False)
    server = check_server(server)

    document: dict[str, object] = {"seed": seed}
    document |= {name: model_reference(text, f"--{name}") for name, text in
                 (("base", base), ("aligned", aligned)) if text}  # fmt: skip
    if send_hub_token:
        document["hub_token"] = hub_token()
    if webhook is not None:
        document["webhook"] = {"url": webhook, "secret": webhook_secret}
    with connected(server, key) as client, Sending(client, maps) as sending:
        texts = sending.texts(
            {"clean": clean, "unlabelled": unlabelled, "validation": validation,
             "evaluation": evaluate, "triggered": triggered}
        )  # fmt: skip
        document["source"] = sending.adapter(adapter)
        if not inspect:
            document |= {"threat": threat, "validation_share": validation_share}
            document |= {role: texts[role] for role in ("clean", "unlabelled", "validation") if role in texts}
            if steps:
                document["steps"] = [each.model_dump(mode="json") for each in steps]
            if "evaluation" in texts:
                document["evaluation"] = {
                    "data": texts["evaluation"],
                    "triggered": texts.get("triggered"),
                    **evaluation_fields(
                        trigger=known, target=target, numbered=sending.numbered, metric=metric,
                        probes=probes, max_examples=max_examples, max_new_tokens=max_new_tokens,
                        controls=controls,
                    ),
                }  # fmt: skip
            if publish is not None:
                document["publish"] = {"repo_id": publish, "private": private, "create_pr": create_pr}
        job, accepted = create_job(client, "inspect" if inspect else "repair", document)
    url = f"{server}/jobs/{job.id}"
    if not (watch or out):
        if json:
            print_json(stdlib_json.loads(accepted))
        else:
            typer.echo(f"Job {job.id} is {job.status}.")
            typer.echo(f"  watch  loramend watch {url}")
            if not inspect:
                typer.echo(f"  fetch  loramend pull {url} --out repaired")
        return
    if not json:
        typer.echo(f"Job {url}")
    _, summary = until_ended(server, key, job.id, events_on_stdout=False)
    if out is not None:
        pull_adapter(server, key, job.id, out)
    if json:
        with connected(server, key) as client:
            print_json(stdlib_json.loads(get_job(client, job.id)[1]))
        return
    for line in summary:
        typer.echo(line)
    if out is not None:
        typer.echo(f"\nRepaired adapter, report.json and report.html are in {out}")
