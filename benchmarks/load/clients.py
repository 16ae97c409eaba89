"""Many clients at once, in a process of their own: each submits an adapter, asks how it goes until the job
has ended, and begins again.

    python -m benchmarks.load.clients URL ADAPTER --clients N --seconds S [--key KEY …]

Prints what they were answered as a JSON document. An answer is honest where it is what was asked for, or a
429 or 503 that says when to ask again; then its client waits that long. At the end every client cancels its
job.
"""

import argparse
import asyncio
import json
import random
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, Field

POLL_SECONDS = 1.0
_TIMEOUT = 30.0
_WRONG_KEPT = 20
_LAG_SECONDS = 0.05
_REQUEST = json.dumps({"steps": [{"type": "shrink", "factor": 0.5}]})
_ENDED = frozenset({"succeeded", "failed", "canceled"})
POST, GET, CANCEL = "POST /repair", "GET /jobs/{id}", "POST /jobs/{id}/cancel"
_GOOD = {POST: {202}, GET: {200}, CANCEL: {200, 409}}


class Answers(BaseModel):
    """What one kind of call was answered: how often each status, and how long each answer took."""

    statuses: dict[int, int] = Field(default_factory=dict)
    seconds: list[float] = Field(default_factory=list)


class Told(BaseModel):
    """What a run of the clients saw.

    wrong   each answer that was none of the honest ones, and each call without an answer
    ended   how many of the jobs that were accepted ended in which way before their client left
    lag     how much later than asked this process got round to its timers: part of every time it measured
    """

    calls: dict[str, Answers] = Field(default_factory=dict)
    wrong: list[str] = Field(default_factory=list)
    wrong_count: int = 0
    codes: dict[str, int] = Field(default_factory=dict)
    ended: dict[str, int] = Field(default_factory=dict)
    lag: list[float] = Field(default_factory=list)
    seconds: float = 0


class Client:
    """One of them."""

    def __init__(self, http: httpx.AsyncClient, adapter: bytes, until: float, told: Told) -> None:
        self._http = http
        self._adapter = adapter
        self._until = until
        self._told = told

    async def run(self) -> None:
        # Not all in the same instant, as strangers would not be.
        await asyncio.sleep(random.random() * POLL_SECONDS)
        while time.perf_counter() < self._until:
            job = await self._submit()
            if job is not None:
                await self._follow(job)

    async def _submit(self) -> str | None:
        files = {"adapter": ("adapter.tar.gz", self._adapter), "request": (None, _REQUEST)}
        answer = await self._call(POST, "/repair", files=files)
        return str(answer.json()["id"]) if answer is not None else None

    async def _follow(self, job: str) -> None:
        while time.perf_counter() < self._until:
            await asyncio.sleep(POLL_SECONDS * (0.5 + random.random()))
            answer = await self._call(GET, f"/jobs/{job}")
            if answer is not None and (status := answer.json()["status"]) in _ENDED:
                self._ended(status)
                return
        while (answer := await self._call(CANCEL, f"/jobs/{job}/cancel")) is None:
            if self._told.wrong_count:
                return
        self._ended("canceled at the end" if answer.status_code == 200 else "ended before the cancel")

    def _ended(self, how: str) -> None:
        self._told.ended[how] = self._told.ended.get(how, 0) + 1

    async def _call(
        self, kind: str, path: str, files: Mapping[str, Any] | None = None
    ) -> httpx.Response | None:
        """The answer, where it is what was asked for."""
        method = kind.partition(" ")[0]
        start = time.perf_counter()
        try:
            answer = await self._http.request(method, path, files=files)
        except httpx.HTTPError as error:
            self._wrong(f"{kind}: {type(error).__name__} {error} after {time.perf_counter() - start:.2f} s")
            await asyncio.sleep(POLL_SECONDS)
            return None
        told = self._told.calls.setdefault(kind, Answers())
        told.seconds.append(time.perf_counter() - start)
        told.statuses[answer.status_code] = told.statuses.get(answer.status_code, 0) + 1
        if answer.status_code in _GOOD[kind]:
            return answer
        await asyncio.sleep(self._again_after(kind, answer))
        return None

    def _again_after(self, kind: str, answer: httpx.Response) -> float:
        """After how many seconds it may be asked again."""
        after = answer.headers.get("retry-after", "")
        kind_of = answer.headers.get("content-type", "")
        honest = answer.status_code in (429, 503) and after.isdecimal() and int(after) > 0
        if not honest or not kind_of.startswith("application/problem+json"):
            self._wrong(f"{kind}: {answer.status_code}, Retry-After {after!r}: {answer.text[:200]}")
            return POLL_SECONDS
        code = answer.json()["code"]
        self._told.codes[code] = self._told.codes.get(code, 0) + 1
        return float(after)

    def _wrong(self, what: str) -> None:
        self._told.wrong_count += 1
        if len(self._told.wrong) < _WRONG_KEPT:
            self._told.wrong.append(what)


async def _watch_lag(lag: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(_LAG_SECONDS)
        lag.append(time.perf_counter() - start - _LAG_SECONDS)


async def run(url: str, adapter: bytes, clients: int, seconds: float, keys: list[str]) -> Told:
    """Let them all work for that long; `keys` are given out in turn."""
    told = Told()
    context = ssl.create_default_context()  # one for all: making it costs more than all else
    connections = []
    for number in range(clients):
        headers = {"Authorization": f"Bearer {keys[number % len(keys)]}"} if keys else {}
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, verify=context)
        connections.append(http)
    watching = asyncio.create_task(_watch_lag(told.lag))
    start = time.perf_counter()
    until = start + seconds
    try:
        await asyncio.gather(*(Client(http, adapter, until, told).run() for http in connections))
        told.seconds = time.perf_counter() - start
    finally:
        watching.cancel()
        await asyncio.gather(*(http.aclose() for http in connections))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.load.clients", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--key", action="append", default=[])
    given = parser.parse_args()
    told = asyncio.run(run(given.url, given.adapter.read_bytes(), given.clients, given.seconds, given.key))
    sys.stdout.write(told.model_dump_json())


if __name__ == "__main__":
    main()
