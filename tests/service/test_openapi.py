"""The committed OpenAPI document, and whether the service keeps to it."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from loramend.contracts.errors import CODES, Problem
from loramend.contracts.request import AnalysisRequest, RepairRequest
from service.app import create_app
from service.openapi import COMMITTED, render
from service.settings import ServiceSettings
from tests.service.api.conftest import Running, run_server
from tests.service.api.finished import ended, repaired

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
            scope = "read" if method in ("get", "head") else "submit"
            open_to_all = path in ("/healthz", "/readyz")
            assert operation["security"] == ([] if open_to_all else [{"apiKey": [scope]}, {}])


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


schema = schemathesis.openapi.from_dict(DOCUMENT)
JOBS: list[str] = []


@schema.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Half of the calls name a job that there is."""
    if path_parameters and JOBS:
        pick = random.Random(str(path_parameters))
        if pick.random() < 0.5:
            known = {
                "job_id": pick.choice(JOBS),
                "namespace": "repaired",
                "name": JOBS[0],
                "revision": "main",
            }
            path_parameters |= {name: value for name, value in known.items() if name in path_parameters}
    return path_parameters


@pytest.fixture(scope="module")
def served(broker_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    blobs: Path = tmp_path_factory.mktemp("blobs")
    running = run_server(
        create_app(
            ServiceSettings(
                broker_url=broker_server, storage_url=f"file://{blobs}", wait_seconds=0, keepalive_seconds=1
            )
        )
    )
    running.services.store.heartbeat_worker("io+spectral@one", 600)
    JOBS[:] = [repaired(running.services).id, ended(running.services, "failed").id]
    yield running
    JOBS.clear()
    running.stop()


@pytest.mark.e2e
@schema.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_the_service_keeps_to_the_document(case: "schemathesis.Case[Any]", served: Running) -> None:
    """No check is left out but one: no schema can tell which file is an adapter, or which upload exists."""
    case.call_and_validate(base_url=served.url, excluded_checks=[positive_data_acceptance])
