"""The command line. Torch, the Hub's client and the network are imported by the commands that need them."""

import os
import signal
from typing import Annotated

import typer

from loramend.cli import bank, keys
from loramend.cli.cancel import cancel
from loramend.cli.diff import diff
from loramend.cli.doctor import doctor
from loramend.cli.evaluate import evaluate
from loramend.cli.inspect import inspect
from loramend.cli.listing import list_jobs
from loramend.cli.pull import pull
from loramend.cli.repair import repair
from loramend.cli.serve import serve
from loramend.cli.status import status
from loramend.cli.submit import submit
from loramend.cli.verify import verify
from loramend.cli.watch import watch

app = typer.Typer(
    name="loramend",
    help="Repair LoRA adapters after training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_SERVER = "At a server"
app.command()(inspect)
app.command()(repair)
app.command()(evaluate)
app.command()(diff)
app.add_typer(bank.app, name="bank")
app.command()(verify)
app.command()(serve)
app.command()(doctor)
app.command(rich_help_panel=_SERVER)(submit)
app.command("list", rich_help_panel=_SERVER)(list_jobs)
app.command(rich_help_panel=_SERVER)(status)
app.command(rich_help_panel=_SERVER)(watch)
app.command(rich_help_panel=_SERVER)(cancel)
app.command(rich_help_panel=_SERVER)(pull)
app.add_typer(keys.app, name="keys", rich_help_panel=_SERVER)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("loramend"))
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and warnings.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["LORAMEND_DEBUG"] = "1"


def run() -> None:
    """The `loramend` console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that TERM cleans up as Ctrl-C does
    app()


if __name__ == "__main__":
    run()
