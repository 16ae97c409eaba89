"""A repaired adapter's folder checked whole: who signed it, and whether its own records agree."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from loramend.contracts.files import (
    BOM,
    CARD,
    ORIGINAL,
    PROVENANCE,
    REPORT,
    REPORT_HTML,
    REPORT_SARIF,
    SIGNATURE,
)
from loramend.contracts.report import Report
from loramend.contracts.verification import Finding, Verification
from loramend.signing.keys import public_key_id
from loramend.signing.records import check_bom, check_files, check_provenance, read_report
from loramend.signing.signature import check_signature, unread
from loramend.signing.tree import Tree

_MADE = {REPORT_HTML, REPORT_SARIF, CARD}


def verify_folder(folder: Path, key: Path | None) -> Verification:
    """Check the files against the report and its companions, and with a public key the signature too.

    Raises SigningError `signing_key_invalid` for a key that cannot verify; whatever is wrong with the folder
    is told in the answer.
    """
    key_id = public_key_id(key) if key is not None else None
    tree = Tree(folder)
    problems, verified, unproven = list(tree.odd), [], []
    signed = SIGNATURE in tree.files
    covered: dict[str, str] | None = None
    if key is not None and key_id is not None:
        if signed:
            found, covered = check_signature(tree, key, key_id)
        else:
            found = [Finding(code="signature_missing", path=SIGNATURE, detail="the folder is not signed")]
        problems += [each for each in found if each not in problems]
        if covered is not None:
            verified.append(f"signed with the key {key_id[:16]}, {len(covered)} files, none changed since")
    elif signed:
        unproven.append("the signature: no key was given, so nothing shows who wrote these files")
    else:
        unproven.append("who wrote these files: there is no signature")

    report = read_report(tree)
    if isinstance(report, Finding):
        problems.append(report)
    else:
        wrong = [*check_files(tree, report), *check_bom(tree, report), *check_provenance(tree, report)]
        problems += wrong
        problems += _uncovered(report, covered)
        if not wrong:
            verified.append(f"the repaired adapter's files ({len(report.output)}) are those of the report")
            verified.append(f"{ORIGINAL}/ holds the {len(report.adapter.files)} files that the report names")
            verified.append("the bill of materials names the same files")
        unproven += _beside(tree, report, covered or {})
    unproven.append("what the report says of the adapter: only a new run measures that")
    verdict = "failed" if problems else "unproven" if covered is None else "verified"
    return Verification.model_validate(
        {
            "verdict": verdict,
            "signed": signed,
            "key": None if covered is None else key_id,
            "verified": verified,
            "not_verified": unproven,
            "problems": problems,
        }
    )


def _uncovered(report: Report, covered: Mapping[str, str] | None) -> list[Finding]:
    """A signature by other means may leave files out by name; not those that count."""
    if covered is None:
        return []
    needed = [REPORT, BOM, *(file.path for file in report.output)]
    return [
        Finding(code="file_not_signed", path=name, detail="the signature leaves it out")
        for name in needed
        if name not in covered
    ]


def _beside(tree: Tree, report: Report, covered: Iterable[str]) -> list[str]:
    """What neither signature nor report vouches for."""
    told = {REPORT, BOM, PROVENANCE, SIGNATURE, *(file.path for file in report.output)}
    told |= {f"{ORIGINAL}/{file.path}" for file in report.adapter.files}
    rest = sorted(set(tree.files) - told - set(covered))
    lines = []
    if made := [name for name in rest if name in _MADE]:
        lines.append(f"{', '.join(made)}: no record holds their digests, only a signature would")
    if put := [name for name in rest if unread(name)]:
        lines.append(f"{', '.join(put[:5])}: put here by Git or the Hub's client, and never signed")
    if others := [name for name in rest if name not in _MADE and not unread(name)]:
        lines.append(f"{', '.join(others)}: not of this repair, as far as its records say")
    return lines
