"""Whether a repaired adapter's files are those that its report, bill of materials and loramend.json name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from loramend.contracts.files import BOM, ORIGINAL, PROVENANCE, REPORT
from loramend.contracts.report import FileDigest, Report
from loramend.contracts.verification import Finding
from loramend.signing.tree import Tree


def read_report(tree: Tree) -> Report | Finding:
    """The report of a repair, or what is wrong with it."""
    if REPORT not in tree.files:
        return Finding(
            code="report_missing", path=REPORT, detail="is not here: this is no folder that loramend wrote"
        )
    try:
        report = Report.model_validate(tree.document(REPORT))
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        return Finding(
            code="report_invalid", path=REPORT, detail=f"no report of ours: {where}: {first['msg']}"
        )
    except ValueError as error:
        return Finding(code="report_invalid", path=REPORT, detail=f"cannot be read: {error}")
    if report.kind != "repair" or not report.output:
        return Finding(code="report_invalid", path=REPORT, detail="names no repaired adapter's files")
    return report


def check_files(tree: Tree, report: Report) -> Iterator[Finding]:
    """The repaired adapter's files, and those it was made of, against the report."""
    originals = [(f"{ORIGINAL}/{file.path}", file) for file in report.adapter.files]
    for name, file in [*((file.path, file) for file in report.output), *originals]:
        if name not in tree.files:
            yield Finding(code="file_missing", path=name, detail="the report names it and it is not here")
        elif tree.sha256(name) != file.sha256:
            yield Finding(
                code="file_changed",
                path=name,
                detail=f"not the file of the report, whose sha256 is {file.sha256}",
            )


def check_bom(tree: Tree, report: Report) -> Iterator[Finding]:
    """The bill of materials against the report."""
    if BOM not in tree.files:
        yield Finding(code="bom_missing", path=BOM, detail="is not here")
        return
    try:
        adapter = tree.document(BOM)["metadata"]["component"]
        ancestor = adapter["pedigree"]["ancestors"][0]
        pairs = {"repaired adapter": (adapter, report.output), "original": (ancestor, report.adapter.files)}
        wrong = [what for what, (held, told) in pairs.items() if _components(held) != _digests(told)]
    except (ValueError, KeyError, TypeError, IndexError):
        yield Finding(code="bom_differs", path=BOM, detail="no bill of materials of ours")
        return
    for what in wrong:
        yield Finding(code="bom_differs", path=BOM, detail=f"names other files of the {what} than the report")


def check_provenance(tree: Tree, report: Report) -> Iterator[Finding]:
    """loramend.json against the report, where there is one."""
    if PROVENANCE not in tree.files:
        return
    try:
        told = tree.document(PROVENANCE)
        agrees = (told["input"], told["output"]) == (_dump(report.adapter.files), _dump(report.output))
    except (ValueError, KeyError):
        agrees = False
    if not agrees:
        yield Finding(code="provenance_differs", path=PROVENANCE, detail="names other files than the report")


def _components(component: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each["hashes"][0]["content"] for each in component["components"]}


def _digests(files: Iterable[FileDigest]) -> dict[str, str]:
    return {file.path: file.sha256 for file in files}


def _dump(files: Iterable[FileDigest]) -> list[dict[str, Any]]:
    return [file.model_dump(mode="json") for file in files]
