"""A client that does not give up: every job is asked for until the service says it has it."""

import hashlib
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

# Longer than any outage of the campaign.
PATIENCE = 120.0
# What goes away by itself: the broker, the disk, or a request with the same key that died with its server.
_LATER = {"broker_unavailable", "storage_unavailable", "disk_full", "not_ready", "idempotency_in_flight"}


@dataclass
class Sent:
    """A job as its client knows it.

    kind      which undisturbed run it is to equal
    expect    how it may end, as a status or, for a failure, its code
    ended     seconds on the monotonic clock
    answers   errors that the service gave before it took the job
    """

    id: str
    kind: str
    expect: frozenset[str]
    begun: float
    seen: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0
    answers: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """The status, or the code of a failure."""
        error = self.seen.get("error")
        return str(error["code"] if error else self.seen.get("status", "unknown"))


@dataclass(frozen=True)
class Work:
    """What a job is asked to do with which adapter (packed) and which text, by its role."""

    name: str
    adapter: bytes
    request: dict[str, Any]
    texts: dict[str, bytes] = field(default_factory=dict)


class Client:
    """Talks to one server, and has it tell `webhook` of every job's end; several threads may use it."""

    def __init__(self, url: str, webhook: dict[str, str]) -> None:
        self._webhook = webhook
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(30.0))

    def close(self) -> None:
        self._http.close()

    def submit(self, work: Work, *, expect: frozenset[str] = frozenset({"succeeded"})) -> Sent:
        """Send the job, with one Idempotency-Key however often it takes. Raises RuntimeError for an answer
        that does not go away by itself, or not in time."""
        begun = time.monotonic()
        key = uuid.uuid4().hex
        answers: list[str] = []
        while True:
            said, code = self._try(work, key)
            if code is None:
                return Sent(said["id"], work.name, expect, begun, seen=said, answers=answers)
            answers.append(code)
            late = time.monotonic() - begun > PATIENCE
            if late or (code not in _LATER and code != "no answer"):
                raise RuntimeError(f"a job was not taken: {', '.join(answers)}: {said}")
            time.sleep(0.3)

    def _try(self, work: Work, key: str) -> tuple[dict[str, Any], str | None]:
        """The answer, and the code of an error or "no answer"."""
        request = work.request | {"webhook": self._webhook}
        if "source" in request:
            given: dict[str, Any] = {"json": request}
        else:
            texts = {role: (f"{role}.jsonl", text) for role, text in work.texts.items()}
            given = {
                "files": {"adapter": ("adapter.tar", work.adapter), **texts},
                "data": {"request": json.dumps(request)},
            }
        try:
            answer = self._http.post("/repair", headers={"Idempotency-Key": key}, **given)
        except httpx.TransportError:
            return {}, "no answer"
        said: dict[str, Any] = answer.json()
        return said, None if answer.is_success else str(said["code"])

    def get(self, job_id: str) -> dict[str, Any] | None:
        """The job; None where the service does not answer just now."""
        try:
            answer = self._http.get(f"/jobs/{job_id}")
        except httpx.TransportError:
            return None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return None
        if not answer.is_success:
            return {"status": "lost", "error": {"code": str(answer.json().get("code"))}}
        said: dict[str, Any] = answer.json()
        return said

    def cancel(self, job_id: str) -> int:
        """The answer's status code."""
        return self._http.post(f"/jobs/{job_id}/cancel").status_code

    def digest(self, job_id: str) -> str:
        """sha256 of the repaired weights, as the service hands them out."""
        path = f"/repaired/{job_id}/resolve/main/adapter_model.safetensors"
        answer = self._http.get(path)
        answer.raise_for_status()
        return hashlib.sha256(answer.content).hexdigest()

    def report(self, job_id: str) -> dict[str, Any]:
        """The job's report."""
        answer = self._http.get(f"/jobs/{job_id}/report", headers={"Accept": "application/json"})
        said: dict[str, Any] = answer.raise_for_status().json()
        return said

    def jobs(self) -> list[str]:
        """The ids of all jobs."""
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = self._http.get("/jobs", params={"limit": "200", **cursor}).raise_for_status().json()
            found += [job["id"] for job in page["jobs"]]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}
