"""`loramend inspect`: what an adapter's weights say, changing nothing."""

from loramend.cli import options
from loramend.cli.errors import fails_in_one_line
from loramend.cli.output import check_writable, print_model, write_text
from loramend.cli.signals import interrupts_held


@fails_in_one_line
def inspect(
    adapter: options.Adapter,
    base: options.Base = None,
    aligned: options.Aligned = None,
    bank: options.Bank = None,
    report: options.Report = None,
    json: options.Json = False,
    seed: options.Seed = 0,
    device: options.Device = None,
    cache: options.Cache = options.DEFAULT_CACHE,
) -> None:
    """Measure an adapter: its spectrum, and how it lies to its base and aligned model."""
    if report is not None:
        check_writable(report, "--report")
    with interrupts_held():
        from loramend import repair as pipeline
        from loramend.bank.file import read_bank
        from loramend.cli.tables import print_report
        from loramend.cli.work import prepared
        from loramend.result import report_text

    opened = read_bank(bank) if bank is not None else None
    with prepared(adapter, base, aligned, device=device, cache=cache) as work:
        told = pipeline.inspect(
            work.adapter,
            work.references,
            seed=seed,
            device=work.device,
            on_progress=work.on_progress,
            source=work.source,
            bank=opened,
        )
    if report is not None:
        write_text(report, report_text(told, report.name))
    if json:
        print_model(told)
    else:
        print_report(told)
