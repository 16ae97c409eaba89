"""Whether the service keeps to its OpenAPI document: schemathesis, one call at a time and in chains of calls,
without API keys and with them."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import positive_data_acceptance

from loramend.contracts.keys import SCOPES
from service.api.gate import needed_scope
from service.api.guard import OPEN_PATHS
from service.app import create_app
from service.jobs.connect import redis_from_url
from service.jobs.keys import KeyStore
from service.openapi import COMMITTED
from service.settings import ServiceSettings
from tests.report.test_html import made
from tests.service.api.conftest import Running, run_server
from tests.service.api.finished import ended, repaired

pytestmark = pytest.mark.e2e

# No check is left out but one: no schema can tell which file is an adapter, or which upload exists.
UNKNOWABLE = [positive_data_acceptance]
NONE = "no scope"
# So many calls in chains, and on until each of these has been met.
CALLS = 300
CHAIN = {
    "POST /repair 202", "POST /inspect 202", "GET /jobs 200", "GET /jobs/{job_id} 200",
    "GET /jobs/{job_id}/events 200", "POST /jobs/{job_id}/cancel 200", "DELETE /jobs/{job_id} 204",
}  # fmt: skip
QUIET = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

CHAINS = settings(QUIET, derandomize=False, max_examples=10, stateful_step_count=10, phases=[Phase.generate])

DOCUMENT: dict[str, Any] = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
JOBS: list[str] = []
schema, asking = schemathesis.openapi.from_dict(DOCUMENT), schemathesis.openapi.from_dict(DOCUMENT)
# Every corner of every schema, thousands of bodies, is tried once; a key changes nothing about that.
asking.config.phases.coverage.enabled = False


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


schema.hook(map_path_parameters)
asking.hook(map_path_parameters)


class Door:
    """A running service, and whom it takes a call for.

    keys  those it knows, by their scope, and one that it does not; where it asks for none, none
    """

    def __init__(self, running: Running, keys: dict[str, str]) -> None:
        self.url = running.url
        self._keys = keys

    def call(self, case: "schemathesis.Case[Any]") -> None:
        """Send it with one of the keys, and check the answer."""
        scope = self.any_scope(case.id)
        self.check(case, case.call(**self.sent_with(scope)), scope)

    def sent_with(self, scope: str | None) -> dict[str, Any]:
        headers = {} if scope is None else {"Authorization": f"Bearer {self._keys[scope]}"}
        return {"base_url": self.url, "headers": headers}

    def check(self, case: "schemathesis.Case[Any]", answer: Any, scope: str | None) -> None:
        """Against the document; and whom it let in."""
        sent = self.sent_with(scope)["headers"]
        case.validate_response(answer, excluded_checks=UNKNOWABLE, headers=sent)
        if scope is None or case.path in OPEN_PATHS:
            return
        needed = needed_scope(case.method.upper(), case.path)
        refused = 401 if scope == NONE else 403 if scope not in (needed, "admin") else None
        assert answer.status_code == refused if refused else answer.status_code not in (401, 403)

    def any_scope(self, seed: str, *, mostly: str | None = None) -> str | None:
        """One of the keys, or none where none is asked for."""
        if not self._keys:
            return None
        pick = random.Random(seed)
        return mostly if mostly and pick.random() < 0.8 else pick.choice(sorted(self._keys))


@pytest.fixture(scope="module")
def place(broker_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of an emptied job store and a storage."""
    with redis_from_url(broker_server) as client:
        client.flushall()
    blobs: Path = tmp_path_factory.mktemp("blobs")
    return {"broker_url": broker_server, "storage_url": blobs.as_uri()}


@contextmanager
def serving(place: dict[str, str], *, asks: bool) -> Iterator[Running]:
    """With a few jobs of alice's, whom nobody asks for a key at the open door."""
    given: dict[str, Any] = {"wait_seconds": 0, "keepalive_seconds": 1, "key_requests_per_minute": 0}
    running = run_server(create_app(ServiceSettings(**place, **given, require_keys=asks)))
    services = running.services
    services.store.heartbeat_worker("io+spectral@one", 600)
    report = made({"type": "shrink"}).model_dump_json().encode()
    JOBS[:] = [repaired(services, told=report, owner="alice").id, ended(services, "failed").id]
    yield running
    JOBS.clear()
    running.stop()


@pytest.fixture(scope="module")
def open_door(place: dict[str, str]) -> Iterator[Door]:
    with serving(place, asks=False) as running:
        yield Door(running, {})


@pytest.fixture(scope="module")
def closed_door(place: dict[str, str]) -> Iterator[Door]:
    with serving(place, asks=True) as running:
        store = KeyStore(running.services.redis)
        keys = {scope: store.create("alice", [scope]).key for scope in SCOPES}
        yield Door(running, {**keys, NONE: f"loramend_{'0' * 12}_{'0' * 48}"})


@schema.parametrize()
@settings(QUIET, max_examples=10)
def test_every_call_without_keys(case: "schemathesis.Case[Any]", open_door: Door) -> None:
    open_door.call(case)


@asking.parametrize()
@settings(QUIET, max_examples=12)
def test_every_call_with_keys(case: "schemathesis.Case[Any]", closed_door: Door) -> None:
    closed_door.call(case)


def test_chains_of_calls_without_keys(open_door: Door) -> None:
    chains(open_door)


def test_chains_of_calls_with_keys(closed_door: Door) -> None:
    chains(closed_door)


def chains(door: Door) -> None:
    """What one call answered goes into the next: a job is made, looked at, canceled, deleted."""
    answered: Counter[str] = Counter()
    failed: list[Exception] = []

    def call(self: Any, case: Any, **_: Any) -> Any:
        self.scope = door.any_scope(str(answered.total()), mostly="admin")
        answer = case.call(**door.sent_with(self.scope))
        answered[f"{case.method} {case.path} {answer.status_code}"] += 1
        return answer

    def validate_response(self: Any, response: Any, case: Any, *_: Any, **__: Any) -> None:
        try:
            door.check(case, response, self.scope)
        except Exception as error:
            failed.append(error)

    acts = {"call": call, "validate_response": validate_response}
    workflow = type("Workflow", (asking.as_state_machine(),), acts)
    number = 0
    while not failed and (answered.total() < CALLS or not answered.keys() >= CHAIN):
        assert answered.total() < 10 * CALLS, answered
        # What has been done to the jobs stays: the same drawing may go another way, which ends a run.
        with suppress(FlakyStrategyDefinition):
            run_state_machine_as_test(seed(number)(workflow), settings=CHAINS)
        number += 1
    if failed:
        raise failed[0]
