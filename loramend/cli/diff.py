"""`loramend diff`: two adapters side by side."""

from pathlib import Path
from typing import Annotated

import typer

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import check_writable, print_model, write_text
from loramend.cli.signals import interrupts_held


@fails_in_one_line
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="An adapter, in any form that inspect takes.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, such as a repaired one.")],
    base: options.Base = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the comparison here too: as a page where FILE ends in .html, otherwise as JSON.",
        ),
    ] = None,
    json: options.Json = False,
    device: options.Device = None,
    cache: options.Cache = options.DEFAULT_CACHE,
) -> None:
    """Compare two adapters module by module: ranks, norms, strength, how far B lies from A, and in which
    directions they agree.

    Every number is exact and taken from the factors. Exit code 0, whether they differ or not.
    """
    if report is not None:
        check_writable(report, "--report")
    with interrupts_held():
        from loramend.cli.difftables import print_diff
        from loramend.cli.work import prepared_pair
        from loramend.report.diff import diff as compare

    with prepared_pair(a, b, base, device=device, cache=cache) as pair:
        found = compare(
            pair.a,
            pair.b,
            pair.references,
            device=pair.device,
            on_progress=pair.on_progress,
            source=pair.source,
        )
    if report is not None and report.suffix.lower() == ".html":
        from loramend.report.diff_html import diff_html

        write_text(report, diff_html(found))
    elif report is not None:
        write_text(report, found.model_dump_json(indent=2) + "\n")
    if json:
        print_model(found)
    else:
        print_diff(found)
