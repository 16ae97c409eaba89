"""`loramend doctor`: what this machine can do, and what to put right."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loramend.cli import options
from loramend.cli.datafolder import default_root
from loramend.cli.errors import fails_in_one_line, printable
from loramend.cli.output import print_model
from loramend.cli.signals import interrupts_held

if TYPE_CHECKING:
    from loramend.cli.checks.result import Finding, State

_STYLES: "dict[State, str]" = {"ok": "green", "note": "yellow", "fix": "bold red"}


@fails_in_one_line
def doctor(
    device: options.Device = None,
    data: options.Data = None,
    model_root: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="A model root to look at, instead of those of LORAMEND_MODEL_ROOTS."
        ),
    ] = None,
    cache: options.Cache = options.DEFAULT_CACHE,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no server, no Hub and no broker by its URL.")
    ] = False,
    json: options.Json = False,
    server: Annotated[
        str | None,
        typer.Option(
            envvar="LORAMEND_SERVER",
            metavar="URL",
            help="A server that must answer.",
            rich_help_panel=options.SERVER,
        ),
    ] = None,
    key: options.Key = None,
) -> None:
    """Say what this machine can do: versions, device and mixed precision, memory, disk, broker, server, Hub
    and model roots, and what to put right.

    Exit code 1 where something must be put right, 0 where all works, if with less than could be.
    """
    from loramend.cli.checks import machine, models, reach, software
    from loramend.cli.checks.result import Diagnosis, Finding
    from loramend.cli.client.address import check_server
    from loramend.cli.hub.environment import HUGGINGFACE
    from loramend.cli.source import prepare_hub_client

    url = check_server(server) if server else options.DEFAULT_SERVER
    prepare_hub_client()

    def look() -> Iterator[Finding]:
        yield from software.software()
        with interrupts_held():
            found = list(machine.device(device))
        yield from found
        yield from machine.memory()
        yield from machine.disk(
            {
                "--data": data or default_root(),
                "--cache": cache,
                "HF_HOME": _hub_folder(),
                "TMPDIR": Path(tempfile.gettempdir()),
            }
        )
        broker = os.environ.get("LORAMEND_BROKER_URL")
        if broker is None or not offline:
            yield from reach.broker(broker)
        if not offline:
            yield from reach.server(url, key, asked=server is not None)
            yield from reach.hub(os.environ.get("HF_ENDPOINT") or HUGGINGFACE)
        yield from models.model_roots(model_root or [], os.environ.get("LORAMEND_MODEL_ROOTS"))

    findings = list(look())
    diagnosis = Diagnosis(ok=all(finding.state != "fix" for finding in findings), findings=findings)
    if json:
        print_model(diagnosis)
    else:
        _print(diagnosis.findings)
    if not diagnosis.ok:
        raise typer.Exit(1)


def _hub_folder() -> Path:
    """Where huggingface_hub keeps models, by its own rule, which holds where it is not installed too."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get("HF_HOME") or base / "huggingface")


def _print(findings: "Sequence[Finding]") -> None:
    """A line each, what to do on the next, and how many must be put right."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for finding in findings:
        mark = Text(f"{finding.state:<5}", style=_STYLES[finding.state])
        line = f"{printable(finding.name)}: {printable(finding.found)}"
        console.print(mark, Text(line), soft_wrap=True)
        if finding.remedy:
            console.print(Text(f"      {printable(finding.remedy)}", style="dim"), soft_wrap=True)
    count = sum(finding.state == "fix" for finding in findings)
    console.print()
    console.print(f"{count} to put right." if count else "Nothing must be put right.")
