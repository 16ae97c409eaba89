"""What a repair leaves on disk: the repaired adapter, its report and card, and the original beside them."""

import shutil
from pathlib import Path

from loramend.adapter.model import Adapter
from loramend.adapter.write import write_adapter
from loramend.contracts.files import BOM, CARD, ORIGINAL, REPORT, REPORT_HTML, REPORT_SARIF
from loramend.contracts.report import Report
from loramend.report.bom import report_bom
from loramend.report.card import model_card
from loramend.report.html import report_html
from loramend.report.sarif import report_sarif


def report_text(report: Report, name: str) -> str:
    """The report in the form that a file's name asks for: a page for .html, SARIF for .sarif, else JSON."""
    match Path(name).suffix.lower():
        case ".html":
            return report_html(report)
        case ".sarif":
            return report_sarif(report)
    return report.model_dump_json(indent=2) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json`, `report.html` and `report.sarif` into `folder`."""
    for name in (REPORT, REPORT_HTML, REPORT_SARIF):
        (folder / name).write_text(report_text(report, name), encoding="utf-8")


def write_result(adapter: Adapter, report: Report, original: Path, out: Path) -> Report:
    """Write the repaired adapter, its report, its bill of materials, `README.md` and `original/` (the files
    read) into `out`.

    Returns the report with the digests of the repaired adapter's files filled in, as it was written.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = write_adapter(adapter, out)
    report = report.model_copy(update={"output": files})
    write_report(report, out)
    (out / BOM).write_text(report_bom(report), encoding="utf-8")
    (out / CARD).write_text(model_card(report), encoding="utf-8")
    for path, _, _ in adapter.files:
        kept = out / ORIGINAL / path
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original / path, kept)
    return report
