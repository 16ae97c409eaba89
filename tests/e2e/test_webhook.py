"""A job's end is told to a receiver that was down at first; the secret is found nowhere after it."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.faults.adapters import make_adapter
from loramend.cli.datafolder import noted_broker
from service.jobs.connect import redis_from_url
from tests.cli.test_commands import loramend, refused
from tests.e2e.test_token_traces import Traces
from tests.fixtures.receiver import SECRET, is_signed, receiving
from tests.fixtures.worker import wait_for
from tests.serve import Served, free_port, serving
from tests.service.jobs.test_secrets import dump

pytestmark = pytest.mark.e2e

SOON = {
    "LORAMEND_WEBHOOK_PRIVATE_HOSTS": "127.0.0.1",
    "LORAMEND_WEBHOOK_PAUSE_SECONDS": "0.5",
    "LORAMEND_REAP_SECONDS": "0.2",
}


def job_of(served: Served, job_id: str) -> Any:
    return httpx.get(f"{served.url}/jobs/{job_id}").json()


def is_delivered(served: Served, job_id: str) -> bool:
    return bool(job_of(served, job_id)["webhook"]["state"] == "delivered")


def webhook_events(served: Served, job_id: str) -> list[Any]:
    events = httpx.get(f"{served.url}/jobs/{job_id}/events").json()["events"]
    return [event["data"] for event in events if event["type"] == "webhook"]


def test_a_receiver_that_comes_up_later_is_told(tmp_path: Path) -> None:
    port, adapter = free_port(), make_adapter(tmp_path / "adapter")
    hook = ["--webhook", f"http://127.0.0.1:{port}/hook", "--webhook-secret", SECRET]
    traces = Traces(SECRET)
    with serving(tmp_path / "data", env=SOON) as served:
        asked = ["submit", adapter, "--server", served.url, *hook]
        code, out, err = loramend(*asked, "--step", "shrink", "--watch")
        assert code == 0, out + err
        code, more, _ = loramend(*asked, "--step", "csu", "--base", "/no/such", "--aligned", "/no/such")
        assert code == 1
        assert loramend(*asked, "--step", "csu", "--watch")[0] == 1
        succeeded, *_ = jobs = [job["id"] for job in httpx.get(f"{served.url}/jobs").json()["jobs"]][::-1]
        wait_for(lambda: webhook_events(served, succeeded), what="an attempt")
        assert webhook_events(served, succeeded)[0] == {
            "state": "waiting", "attempt": 1, "detail": "127.0.0.1 could not be reached.",
        }  # fmt: skip
        with receiving(port=port) as receiver:
            for job in jobs:
                wait_for(partial(is_delivered, served, job), what=job)
            time.sleep(1)
        told = {request.headers["webhook-id"]: request for request in receiver.received}
        assert len(told) == len(receiver.received) == len(jobs), "each once"
        assert all(is_signed(request) for request in receiver.received)
        for job in jobs:
            there, document = job_of(served, job), told[f"msg_{job}"].document
            assert document["type"] == f"job.{there['status']}"
            assert document["data"]["error"] == (there["error"] or {}).get("code")
            assert webhook_events(served, job)[-1]["state"] == "delivered"
        report = httpx.get(f"{served.url}{told[f'msg_{succeeded}'].document['data']['links']['report']}")
        assert report.status_code == 200
        answers = [
            f"/jobs{path}" for job in jobs for path in ("", f"/{job}", f"/{job}/events", f"/{job}/report")
        ]
        for path in answers:
            traces.look(path, httpx.get(f"{served.url}{path}").content)
        broker = noted_broker(served.data)
        assert broker is not None
        with redis_from_url(broker) as client:
            held = dump(client)
        traces.look("the job store", held.encode())
        assert '"webhook_secret":null' in held
        assert '"webhook_secret":"' not in held, "not even encrypted"
    traces.look("what the command prints", (out + err + more).encode())
    traces.look_in(tmp_path / "data", tmp_path / "data.serve.log")
    assert any(path.suffix == ".aof" for path in traces.files)
    assert traces.found == []


def test_the_command_says_what_is_missing_or_not_allowed(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    code, _, err = loramend("submit", adapter, "--webhook", "https://example.org/")
    assert code == 2
    assert "LORAMEND_WEBHOOK_SECRET" in err
    with serving(tmp_path / "data") as served:
        asked = ["submit", adapter, "--step", "shrink", "--server", served.url, "--webhook-secret", SECRET]
        said = refused(*asked, "--webhook", "https://10.0.0.1/")
        assert said.startswith("loramend: webhook_not_allowed: 10.0.0.1 is not at a public address")
        assert "[--webhook]" in said
        assert httpx.get(f"{served.url}/jobs").json()["jobs"] == []
