"""A report's findings as SARIF 2.1.0, for the tools that collect those of scanners.

A result is something that was found, or that could not be shown; its words are the report's own. The level
error is never used, for nothing here is a verdict on an adapter.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from loramend.contracts.report import FileDigest, Report
from loramend.evaluation.words import WORTH_A_LOOK
from loramend.report.words import describe_contrast

SARIF_TYPE = "application/sarif+json"
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_URI = "https://github.com/loramend/loramend"
_DOCS = f"{_URI}/blob/main/docs/03-report.md"

Level = Literal["none", "note", "warning"]


class _Rule(NamedTuple):
    id: str
    name: str
    text: str


class _Result(NamedTuple):
    rule: str
    level: Level
    text: str
    module: str | None = None


_RULES = (
    _Rule("summary", "WhatWasDone", "What was read, measured and done."),
    _Rule("caveat", "WhatItCannotSay", "What the report's numbers do not show."),
    _Rule("placebo", "BesideItsPlacebo", "A repair beside changes of the same size without its knowledge."),
    _Rule("attack-success", "TriggerStillWorks", "Triggered examples that still get the target."),
    _Rule("flips", "InsertionsFlipAnswers", "Random insertions that change the answer to the same text."),
    _Rule("turning-word", "WordTurnsAnswers", "A word that turns the given adapter's answer on any text."),
    _Rule("style-words", "WordsReadDifferently", "Words as of a style that serves as a trigger."),
    _Rule("unlike-bank", "UnlikeTheBank", "Weights unlike those of a bank of other adapters."),
    _Rule("not-repaired", "TensorNotRepaired", "A tensor that was copied as it came, not looked into."),
    _Rule("left-alone", "ModuleLeftAlone", "A module that a step left as it was."),
)
_KINDS: dict[Level, str] = {"none": "informational", "note": "review", "warning": "fail"}


def report_sarif(report: Report) -> str:
    """The report as a SARIF log of one run; the same report gives the same text."""
    artifacts = [*(_artifact(file, "analysisTarget") for file in report.adapter.files)]
    artifacts += [_artifact(file, "resultFile", "repaired/") for file in report.output]
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver(report)},
                "invocations": [_invocation(report)],
                "artifacts": artifacts,
                "columnKind": "unicodeCodePoints",
                "results": [_result(report, found) for found in _found(report)],
                "properties": _properties(report),
            }
        ],
    }
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _found(report: Report) -> Iterator[_Result]:
    yield from _behaviour(report)
    for training in report.training:
        for word in training.found:
            kind = "word" if word.overrides is None else "phrase"
            place = "" if word.as_trigger else ", from one place alone,"
            turned = f"{word.turned.count} of {word.turned.n} texts{place}"
            yield _Result(
                "turning-word",
                "warning" if word.as_trigger else "note",
                f'The {kind} "{word.word}" turned {turned} away from the answer {word.answer}, as given.',
            )
        for sentence in describe_contrast(training):
            yield _Result("style-words", "warning", sentence)
    if report.triage is not None and report.triage.verdict == "unlike_the_bank":
        yield _Result("unlike-bank", "note", " ".join(report.triage.sentences))
    for comparison in report.placebo:
        level: Level = "warning" if comparison.verdict == "indistinguishable_by_weights" else "note"
        yield _Result("placebo", level, f"Step {comparison.step + 1}: {comparison.sentence}")
    for module in report.modules:
        for step in module.steps:
            if not step.applied:
                why = f": {step.reason}" if step.reason else "."
                yield _Result("left-alone", "note", f"{step.type} left {module.name} alone{why}", module.name)
    for name in report.adapter.passed_through:
        yield _Result("not-repaired", "warning", f"{name} was copied as it came and is not repaired.", name)
    for sentence in report.summary:
        yield _Result("summary", "none", sentence)
    for caveat in report.caveats:
        yield _Result("caveat", "note", caveat)


def _behaviour(report: Report) -> Iterator[_Result]:
    """What the adapter as it stands now was measured to do."""
    if report.evaluation is None:
        return
    by_name = {variant.name: variant for variant in report.evaluation.variants}
    now = by_name.get("after") or by_name.get("before")
    for rule, rate, what in (
        ("attack-success", now.attack if now else None, "triggered examples got the target"),
        ("flips", now.flips if now else None, "probes changed the answer"),
    ):
        if rate is not None:
            yield _Result(
                rule,
                "warning" if rate.low > WORTH_A_LOOK else "note",
                f"{rate.count} of {rate.n} {what}: {rate.rate:.1%} (95% interval {rate.low:.1%} to "
                f"{rate.high:.1%}).",
            )


def _result(report: Report, found: _Result) -> dict[str, Any]:
    """One result, at the adapter's weights and, where it is of one, at the module."""
    weights = report.adapter.files[-1].path if report.adapter.files else None
    location: dict[str, Any] = {}
    if weights is not None:
        index = len(report.adapter.files) - 1
        location["physicalLocation"] = {"artifactLocation": {"uri": _uri(weights), "index": index}}
    if found.module is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": found.module, "kind": "module"}]
    print_of = hashlib.sha256(f"{found.rule}\n{found.module}\n{found.text}".encode("utf-8", "replace"))
    return {
        "ruleId": found.rule,
        "ruleIndex": [rule.id for rule in _RULES].index(found.rule),
        "kind": "informational"
        if found.level == "none"
        else "fail"
        if found.level == "warning"
        else "review",
        "level": "warning" if found.level == "warning" else "none",  # as SARIF has it of other kinds
        "message": {"text": _plain(found.text)},
        "locations": [location] if location else [],
        "partialFingerprints": {"loramend/v1": print_of.hexdigest()},
    }


def _driver(report: Report) -> dict[str, Any]:
    return {
        "name": "loramend",
        "version": report.provenance.loramend,
        "informationUri": _URI,
        "rules": [
            {
                "id": rule.id,
                "name": rule.name,
                "shortDescription": {"text": rule.text},
                "helpUri": _DOCS,
            }
            for rule in _RULES
        ],
    }


def _invocation(report: Report) -> dict[str, Any]:
    began = report.provenance.started_at
    ended = began + timedelta(seconds=report.provenance.seconds)
    return {
        "executionSuccessful": True,
        "startTimeUtc": f"{began:%Y-%m-%dT%H:%M:%S}Z",
        "endTimeUtc": f"{ended:%Y-%m-%dT%H:%M:%S}Z",
    }


def _artifact(file: FileDigest, role: str, folder: str = "") -> dict[str, Any]:
    return {
        "location": {"uri": folder + _uri(file.path)},
        "length": file.size,
        "hashes": {"sha-256": file.sha256},
        "roles": [role],
    }


def _plain(text: str) -> str:
    """A message that is no link and has no placeholder, whatever an adapter's names hold (3.11.5, 3.11.6)."""
    return re.sub(r"([\[\]])", r"\\\1", text).replace("{", "{{").replace("}", "}}")


def _uri(path: str) -> str:
    return quote(path, errors="replace")


def _properties(report: Report) -> dict[str, Any]:
    """What a collector may want to sort by; the numbers themselves are in report.json."""
    told = {
        "kind": report.kind,
        "threat": report.threat,
        "adapter": report.adapter.name,
        "baseModel": report.adapter.base_model,
        "steps": [step.model_dump(mode="json") for step in report.steps],
        "totals": report.totals.model_dump(mode="json"),
        "reportSchemaVersion": report.schema_version,
    }
    return {name: value for name, value in told.items() if value is not None}
