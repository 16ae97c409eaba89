"""The committed OpenAPI document."""

import json
from typing import Any

import yaml

from loramend.contracts.errors import CODES, Problem
from loramend.contracts.request import AnalysisRequest, RepairRequest
from service.openapi import COMMITTED, render

DOCUMENT: dict[str, Any] = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))


def test_the_committed_document_is_the_applications() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == render(), "run: python -m service.openapi"


def test_every_operation_documents_its_errors_as_problems() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            assert {"401", "403", "429", "500", "503"} <= operation["responses"].keys(), (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    content = response["content"]["application/problem+json"]
                    assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                    assert content["examples"]
                    assert ("Retry-After" in response.get("headers", {})) == (status in ("429", "503"))


def test_every_operation_names_the_scope_it_needs() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            scope = "read" if method in ("get", "head") or path.endswith("/pass") else "submit"
            by_pass = [{"pass": []}] if path.endswith(("{job_id}/report", "{job_id}/adapter")) else []
            open_to_all = path in ("/healthz", "/readyz")
            assert operation["security"] == ([] if open_to_all else [{"apiKey": [scope]}, *by_pass, {}])


def test_examples_are_valid() -> None:
    examples = DOCUMENT["components"]["examples"]
    assert set(examples) == set(CODES)
    for code, example in examples.items():
        problem = Problem.model_validate(example["value"])
        assert (problem.code, problem.status) == (code, CODES[problem.code].status)
    for path, model in (("/repair", RepairRequest), ("/inspect", AnalysisRequest)):
        body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in body["examples"].values():
            model.model_validate_json(json.dumps(example["value"]), strict=True)
