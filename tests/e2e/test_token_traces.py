"""A Hub token that came with a request leaves no trace: everything that the service wrote, kept or answered
is searched for it once the jobs have ended."""

import base64
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from benchmarks.faults.adapters import make_adapter
from loramend.cli.datafolder import noted_broker
from service.jobs.connect import redis_from_url
from tests.fixtures.worker import wait_for
from tests.hub.local import LocalHub
from tests.serve import Served, serving
from tests.service.jobs.test_secrets import dump

pytestmark = pytest.mark.e2e


@pytest.fixture
def token(hub: LocalHub, tmp_path: Path) -> str:
    """Of someone who has a private adapter on the hub."""
    adapter = make_adapter(tmp_path / "adapter", base="org/base")
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    hub.put("someone/adapter", files, private=True)
    random = np.random.default_rng(1)
    weights = {
        f"model.layers.{index}.self_attn.q_proj.weight": random.standard_normal((32, 32)).astype(np.float32)
        for index in range(2)
    }
    hub.put("org/base", {"model.safetensors": save(weights), "config.json": b"{}"})
    hub.accounts.add_user("someone")
    return hub.accounts.add_token("someone", "write")


@pytest.fixture
def served(hub: LocalHub, tmp_path: Path) -> Iterator[Served]:
    env = {
        "LORAMEND_HUB_ENDPOINT": hub.endpoint,
        "LORAMEND_HUB_ATTEMPTS": "1",
        "LORAMEND_LOG_LEVEL": "debug",
        "HF_TOKEN": "",
    }
    with serving(tmp_path / "data", env=env) as served:
        yield served


def spellings(token: str) -> list[bytes]:
    """How it might be written: as it is, in part, and in base64 at each of the three alignments."""
    found = [token.encode(), token[4:].encode(), quote(token).encode(), token.encode()[::-1]]
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + token.encode())
        # What does not hang on the neighbours.
        found.append(coded[4:-4])
    return found


def test_a_token_leaves_no_trace(served: Served, hub: LocalHub, token: str, tmp_path: Path) -> None:
    traces = Traces(token)
    private = {"source": {"hub_id": "someone/adapter"}}
    jobs = [
        submit(served, token, **private, publish={"repo_id": "someone/repaired"}),
        submit(served, token, source={"hub_id": "someone/nosuch"}),
        submit(served, token, **private, publish={"repo_id": "other/repaired"}),
    ]
    refused = httpx.post(f"{served.url}/repair", json={"source": {"hub_id": "??"}, "hub_token": token})
    assert refused.status_code == 422
    traces.look("a refusal", refused.content)
    wait_for(lambda: all(ended(served, job) for job in jobs), seconds=120, what="the jobs")
    statuses = [httpx.get(f"{served.url}/jobs/{job}").json()["status"] for job in jobs]
    assert statuses == ["succeeded", "failed", "failed"]
    assert "someone" in {seen.user for seen in hub.seen}, "the token was used"
    for path in paths_of(served, jobs):
        for accept in ("application/json", "text/html", "application/sarif+json", "text/event-stream", "*/*"):
            answer = httpx.get(f"{served.url}{path}", headers={"Accept": accept})
            traces.look(f"GET {path} as {accept}", answer.content)
            traces.look(f"headers of GET {path}", str(answer.headers).encode())
    broker = noted_broker(served.data)
    assert broker is not None
    with redis_from_url(broker) as client:
        held = dump(client)
        traces.look("the job store", held.encode())
        assert "loramend:token:" not in held, "not even encrypted"
        client.bgsave()
        wait_for(lambda: (served.data / "valkey" / "dump.rdb").exists(), what="the dump")
    traces.look_in(tmp_path / "data", tmp_path / "data.serve.log")
    folders = {path.relative_to(tmp_path).parts[1] for path in traces.files if path.parent != tmp_path}
    assert {"valkey", "logs", "blobs"} <= folders
    assert any(path.suffix == ".aof" for path in traces.files)
    assert any(path.suffix == ".rdb" for path in traces.files)
    assert traces.found == []


def test_the_search_would_find_it(tmp_path: Path) -> None:
    """However it lies there."""
    token = "hf_" + "s3cr3t" * 6
    for number, content in enumerate(
        [
            b"x" + token.encode() + b"y",
            gzip.compress(b"Bearer " + token.encode()),
            base64.b64encode(b"Bearer " + token.encode()),
            base64.b64encode(b'{"Authorization": "Bearer ' + token.encode() + b'"}'),
        ]
    ):
        (tmp_path / str(number)).write_bytes(content)
        traces = Traces(token)
        traces.look_in(tmp_path / str(number))
        assert len(traces.found) == 1, number


class Traces:
    """Where a token was found."""

    def __init__(self, token: str) -> None:
        self._pattern = re.compile(b"|".join(map(re.escape, spellings(token))), re.IGNORECASE)
        self.found: list[str] = []
        self.files: list[Path] = []

    def look(self, where: str, content: bytes) -> None:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        if self._pattern.search(content):
            self.found.append(where)

    def look_in(self, *roots: Path) -> None:
        """Every file there, or below there."""
        for root in roots:
            for path in [root, *root.rglob("*")]:
                if path.is_file():
                    self.files.append(path)
                    self.look(str(path), path.read_bytes())


def submit(served: Served, token: str, **request: object) -> str:
    answer = httpx.post(f"{served.url}/repair", json={"hub_token": token, **request})
    assert answer.status_code == 202, answer.text
    assert token not in answer.text
    return str(answer.json()["id"])


def ended(served: Served, job: str) -> bool:
    return httpx.get(f"{served.url}/jobs/{job}").json()["status"] not in ("queued", "running")


def paths_of(served: Served, jobs: list[str]) -> list[str]:
    """Every address that tells of the jobs, and of each repository's files."""
    paths = ["/jobs", "/metrics", "/openapi.json"]
    for job in jobs:
        paths += [f"/jobs/{job}", f"/jobs/{job}/events", f"/jobs/{job}/report", f"/jobs/{job}/adapter"]
    model = httpx.get(f"{served.url}/api/models/repaired/{jobs[0]}").json()
    names = [file["rfilename"] for file in model["siblings"]]
    assert "report.json" in names
    return [*paths, *(f"/repaired/{jobs[0]}/resolve/main/{name}" for name in names)]
