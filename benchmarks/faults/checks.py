"""What must hold once everything is over: of the jobs, of the job store, and of the disk."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

from benchmarks.faults.campaign import Campaign, Row
from benchmarks.faults.rig import WORKERS
from loramend.contracts.job import TERMINAL
from service.jobs.records import JobRecord
from tests.fixtures.receiver import is_signed

_PREFIX = "loramend:"
# Leftovers are looked for at intervals; what has not gone by then stays.
_CLEAR_SECONDS = 90.0


def check(campaign: Campaign) -> list[str]:
    """Everything that is wrong, in words; each row gets what is wrong with its own jobs."""
    wrong: list[str] = []
    for row in campaign.rows:
        _check_jobs(campaign, row)
    known = [sent.id for row in campaign.rows for sent in row.jobs]
    there = campaign.client.jobs()
    if more := set(there) - set(known):
        wrong.append(f"{len(more)} jobs that no client knows: a request made two")
    if gone := set(known) - set(there):
        wrong.append(f"{len(gone)} jobs are not listed")
    _age_holds(campaign)
    for what, left in _LEFT.items():
        if found := _once_clear(campaign, left):
            wrong.append(f"{what}: {', '.join(found[:5])}{' …' if len(found) > 5 else ''} ({len(found)})")
    for row in campaign.rows:
        _check_told(campaign, row)
    return wrong


def _check_jobs(campaign: Campaign, row: Row) -> None:
    for sent in row.jobs:
        now = campaign.client.get(sent.id) or {}
        if (now.get("status"), now.get("result")) != (sent.seen.get("status"), sent.seen.get("result")):
            row.losses.append(f"{sent.id} changed after it had ended")
        told = [str(e.data.get("status")) for e in campaign.rig.store.events(sent.id) if e.type == "status"]
        ends = [status for status in told if status in TERMINAL]
        if ends != [now.get("status")] or told[-1:] != ends:
            row.losses.append(f"{sent.id} told its end {len(ends)} times")
        if any(a == b for a, b in pairwise(told)):
            row.losses.append(f"{sent.id} told a status twice in a row: {', '.join(told)}")
        if now.get("status") == "succeeded":
            digest = campaign.client.digest(sent.id)
            if digest != campaign.undisturbed.get(sent.kind):
                row.losses.append(f"{sent.id} ({sent.kind}) has other weights than an undisturbed run")


def _check_told(campaign: Campaign, row: Row) -> None:
    """Every end was told to the webhook: at least once, signed, in the same words each time."""
    for sent in row.jobs:
        now = campaign.client.get(sent.id) or {}
        received = campaign.rig.outside.receiver.received
        messages = [each for each in received if each.headers["webhook-id"] == f"msg_{sent.id}"]
        types = {each.document["type"] for each in messages}
        if now.get("webhook", {}).get("state") != "delivered" or types != {f"job.{now.get('status')}"}:
            told = f"{now.get('webhook')}, {', '.join(types) or 'nothing'}"
            row.losses.append(f"{sent.id}, {now.get('status')}, did not tell so to its webhook: {told}")
        if not all(map(is_signed, messages)) or len({each.body for each in messages}) > 1:
            row.losses.append(f"{sent.id} sent webhooks that differ, or are not signed")


def _leases(campaign: Campaign) -> list[str]:
    redis = campaign.rig.redis
    held = [str(key) for key in redis.scan_iter(f"{_PREFIX}job:*") if redis.hget(str(key), "worker")]
    return held + [str(job_id) for job_id in redis.zrange(f"{_PREFIX}due", 0, -1)]


def _messages(campaign: Campaign) -> list[str]:
    redis = campaign.rig.redis
    waiting = [name for name in ("io", "spectral", "train") if redis.llen(f"{_PREFIX}mq:{name}")]
    return waiting + [str(tag) for tag in redis.hkeys(f"{_PREFIX}mq:unacked")]


def _tokens(campaign: Campaign) -> list[str]:
    return [str(key) for key in campaign.rig.redis.scan_iter(f"{_PREFIX}token:*")]


def _webhooks(campaign: Campaign) -> list[str]:
    """Those that wait, or whose secret is still there."""
    waiting = {str(job_id) for job_id in campaign.rig.redis.zrange(f"{_PREFIX}outbox", 0, -1)}
    return sorted(waiting | {record.id for record in _records(campaign) if record.webhook_secret})


def _records(campaign: Campaign) -> list[JobRecord]:
    keys = campaign.rig.redis.scan_iter(f"{_PREFIX}job:*")
    found = (campaign.rig.store.get(str(key).rpartition(":")[2]) for key in keys)
    return [record for record in found if record is not None]


def _temporary(campaign: Campaign) -> list[str]:
    """What lies in the work folder, which is the system's temporary one too, and among unfinished blobs and
    subspaces. Every running process keeps one folder for itself, empty but for folders."""
    folder = campaign.rig.folder
    own = [path for path in folder.work.iterdir() if path.name.startswith("loramend-")]
    left = [path for path in folder.work.iterdir() if path not in own]
    left += [path for root in own for path in root.rglob("*") if path.is_file()]
    left += own if len(own) > len(WORKERS) + 1 else []
    left += [*(folder.blobs / "temporary").iterdir(), *folder.cache.rglob("*.part")]
    return [str(path.relative_to(folder.root)) for path in left]


def _unreferenced(campaign: Campaign) -> list[str]:
    """Blobs that no job refers to, once every temporary hold has run out."""
    referred = {digest for record in _records(campaign) for digest in record.blobs()}
    stored: list[Path] = list((campaign.rig.folder.blobs / "sha256").rglob("*"))
    return [path.name for path in stored if path.is_file() and path.name not in referred]


_LEFT: dict[str, Callable[[Campaign], list[str]]] = {
    "leases that stayed": _leases,
    "webhooks that stayed": _webhooks,
    "messages that stayed": _messages,
    "tokens that stayed": _tokens,
    "temporary files that stayed": _temporary,
    "blobs that nothing refers to": _unreferenced,
}


def _age_holds(campaign: Campaign) -> None:
    """Let every hold have run out: what only they keep is swept then."""
    redis = campaign.rig.redis
    past = (time.time() - 3600) * 1000
    for sha in cast(list[str], redis.zrange(f"{_PREFIX}holds", 0, -1)):
        redis.zadd(f"{_PREFIX}holds", {sha: past}, xx=True)
        found = redis.zrange(f"{_PREFIX}blob:{sha}", 0, -1, withscores=True)
        holders = cast(list[tuple[str, float]], found)
        aged = {holder: past for holder, till in holders if till != float("inf")}
        if aged:
            redis.zadd(f"{_PREFIX}blob:{sha}", aged, xx=True)


def _once_clear(campaign: Campaign, left: Callable[[Campaign], list[str]]) -> list[str]:
    """What is left after the time that clearing takes."""
    deadline = time.monotonic() + _CLEAR_SECONDS
    while (found := left(campaign)) and time.monotonic() < deadline:
        campaign.rig.pause(0.5)
    return found
