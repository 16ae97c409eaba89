"""The bill of materials: valid by CycloneDX's schema, with pedigree, digests and what was learned from."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.report import ReferenceRead, Report
from loramend.contracts.steps import STEPS
from loramend.repair import repair
from loramend.report.bom import report_bom
from loramend.result import write_result
from tests.report.evidence import DATA, with_evidence
from tests.report.test_html import CSU, MARKUP, hostile, made

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def bill(report: Report) -> dict[str, Any]:
    """The bill, after validation."""
    text = report_bom(report)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told = json.loads(text)
    assert isinstance(told, dict)
    return told


def told_of(component: dict[str, Any]) -> dict[str, str]:
    return {each["name"].removeprefix("loramend:"): each["value"] for each in component["properties"]}


def test_a_repaired_adapter_has_its_pedigree(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "in", base="org/base")
    step = STEPS.validate_python({"type": "shrink", "factor": 0.5})
    came = {"hub_id": "someone/adapter", "revision": COMMIT}
    repaired, report = repair(read_adapter(source), [step], source=came)
    report = write_result(repaired, report, source, tmp_path / "out")
    text = (tmp_path / "out" / "bom.cdx.json").read_text(encoding="utf-8")
    assert text == report_bom(report)
    told = bill(report)
    adapter = told["metadata"]["component"]
    assert adapter["type"] == "machine-learning-model"
    written = {file.path: file.sha256 for file in report.output}
    assert adapter["hashes"] == [{"alg": "SHA-256", "content": written["adapter_model.safetensors"]}]
    assert {each["name"]: each["hashes"][0]["content"] for each in adapter["components"]} == written
    [original] = adapter["pedigree"]["ancestors"]
    assert original["purl"] == f"pkg:huggingface/someone/adapter@{COMMIT}"
    read = {file.path: file.sha256 for file in report.adapter.files}
    assert {each["name"]: each["hashes"][0]["content"] for each in original["components"]} == read
    assert '"factor": 0.5' in adapter["pedigree"]["notes"]
    [base] = told["components"]
    assert (base["name"], base["purl"]) == ("org/base", "pkg:huggingface/org/base")
    assert "no" in told_of(base)["read"]
    assert [tool["name"] for tool in told["metadata"]["tools"]["components"]] == ["loramend"]


def test_models_and_text_are_what_it_depends_on() -> None:
    read = [
        ReferenceRead(role="base", name=f"org/base@{COMMIT}", tensors=2, bytes=9, sha256="b" * 64),
        ReferenceRead(role="aligned", name="/models/aligned", tensors=2, bytes=9, sha256="c" * 64),
    ]
    told = bill(with_evidence(made(CSU)).model_copy(update={"references": read}))
    by_ref = {component["bom-ref"]: component for component in told["components"]}
    assert by_ref["model-base"]["purl"] == f"pkg:huggingface/org/base@{COMMIT}"
    assert "purl" not in by_ref["model-aligned"]
    text = by_ref[f"text-{DATA.role}"]
    assert (text["type"], text["hashes"][0]["content"]) == ("data", DATA.sha256)
    [depends] = [each["dependsOn"] for each in told["dependencies"] if each["ref"] == "adapter"]
    assert set(depends) == by_ref.keys()


@pytest.mark.parametrize("text", [MARKUP, "a\u202eb ü %41 \n", "../../x"])
def test_it_is_valid_whatever_an_adapter_says(text: str) -> None:
    bill(hostile(with_evidence(made(CSU)), text))


def test_the_same_report_gives_the_same_bill() -> None:
    report = made(CSU)
    assert report_bom(report) == report_bom(Report.model_validate_json(report.model_dump_json()))
    assert bill(report)["serialNumber"] != bill(made({"type": "shrink"}))["serialNumber"]
