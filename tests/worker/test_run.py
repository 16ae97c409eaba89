"""What becomes of a job when its work goes wrong, in the one place where errors become results."""

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from redis.exceptions import ConnectionError as RedisConnectionError
from safetensors import SafetensorError

from loramend.contracts.errors import AdapterError, JobError, LoramendError
from loramend.contracts.job import JobResult
from service.jobs.lease import LeaseLost
from service.jobs.records import JobRecord
from service.jobs.store import JobStore
from tests.service.jobs.jobs import new_record
from worker import run as run_module
from worker.keeper import HandBack
from worker.process import WorkerProcess
from worker.reaper import remove_leftovers
from worker.run import run
from worker.settings import WorkerSettings
from worker.tools import Tools, open_tools

RESULT = JobResult(report_digest="f" * 64)


@pytest.fixture
def settings(tmp_path: Path, broker_url: str) -> WorkerSettings:
    return WorkerSettings(
        broker_url=broker_url, storage_url=(tmp_path / "blobs").as_uri(), work_dir=tmp_path / "work"
    )


@pytest.fixture
def tools(settings: WorkerSettings) -> Tools:
    return open_tools(settings)


def outcome_of(
    work: Any, tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> JobRecord:
    """The job after a run whose phase returns or raises `work`."""

    def phase(*_: object) -> Any:
        if isinstance(work, BaseException):
            raise work
        return work

    monkeypatch.setattr(run_module, "_phase", phase)
    record = tools.store.create(new_record())
    run(record.id, "spectral", tools, settings, WorkerProcess(["spectral"]))
    found = tools.store.get(record.id)
    assert found is not None
    return found


def test_a_result_ends_the_job(
    tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = outcome_of(RESULT, tools, settings, monkeypatch)
    assert (ended.status, ended.result) == ("succeeded", RESULT)


def test_a_queue_hands_the_job_on(
    tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, redis_client: "redis.Redis"
) -> None:
    waiting = outcome_of("io", tools, settings, monkeypatch)
    assert (waiting.status, waiting.phase_queue) == ("running", "io")
    assert redis_client.llen("loramend:mq:io") == 1


def test_shutdown_gives_the_job_back(
    tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, redis_client: "redis.Redis"
) -> None:
    waiting = outcome_of(HandBack(), tools, settings, monkeypatch)
    assert (waiting.status, waiting.attempts) == ("queued", 0)
    assert redis_client.llen("loramend:mq:spectral") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AdapterError("tensor_not_finite", "It holds NaN.", where="a.safetensors#x"), "tensor_not_finite"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
    ],
)
def test_errors_that_may_be_told(
    error: Exception,
    code: str,
    tools: Tools,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = outcome_of(error, tools, settings, monkeypatch)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "disk_full"),
        (LoramendError("storage_unavailable", "The storage did not answer."), "storage_unavailable"),
    ],
)
def test_errors_that_may_pass_are_told_after_the_last_attempt(
    error: Exception,
    code: str,
    tools: Tools,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    redis_client: "redis.Redis",
) -> None:
    waiting = outcome_of(error, tools, settings, monkeypatch)
    assert (waiting.status, waiting.attempts, waiting.error) == ("queued", 1, None)
    # The reaper sends it, after a while.
    assert redis_client.llen("loramend:mq:spectral") == 0
    for _ in range(settings.max_attempts - 1):
        run(waiting.id, "spectral", tools, settings, WorkerProcess(["spectral"]))
    ended = tools.store.get(waiting.id)
    assert ended is not None
    assert ended.error is not None
    assert (ended.status, ended.error.code) == ("failed", code)


def test_where_it_was_is_told_too(
    tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = AdapterError("tensor_not_finite", "It holds NaN.", where="a.safetensors#x")
    ended = outcome_of(error, tools, settings, monkeypatch)
    assert ended.error == error.problem()


@pytest.mark.parametrize("error", [RuntimeError("secret path /etc/x"), KeyError("secret"), OSError("secret")])
def test_errors_that_may_not(
    error: Exception,
    tools: Tools,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "worker.run"):
        ended = outcome_of(error, tools, settings, monkeypatch)
    assert ended.error is not None
    assert ended.error.code == "internal_error"
    assert "secret" not in ended.error.model_dump_json()
    assert [line.exc_info[1] for line in caplog.records if line.exc_info] == [error]


def test_a_canceled_job_ends_without_an_error(
    tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = outcome_of(JobError("canceled", "…"), tools, settings, monkeypatch)
    assert (ended.status, ended.error) == ("canceled", None)


def test_a_job_taken_away_is_left_to_its_new_holder(
    tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome_of(LeaseLost(), tools, settings, monkeypatch).status == "running"


def test_a_store_that_does_not_answer_fails_no_job(
    tools: Tools, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RedisConnectionError):
        outcome_of(RedisConnectionError(), tools, settings, monkeypatch)
    (record,), _ = tools.store.page()
    assert record.status == "running"


def test_leftovers_of_dead_leases_go_and_nothing_else(tmp_path: Path, tools: Tools) -> None:
    store: JobStore = tools.store
    record = store.create(new_record())
    dead = store.acquire(record.id, "w", 30)
    live = store.acquire(record.id, "w", 30)
    assert dead is not None
    assert live is not None
    names = [f"{record.id}.{dead.fence}", f"{record.id}.{live.fence}", f"{'0' * 32}.1", "other", "x.1"]
    for name in names:
        (tmp_path / "work" / name).mkdir(parents=True)
    remove_leftovers(tmp_path / "work", store)
    assert {folder.name for folder in (tmp_path / "work").iterdir()} == {names[1], "other", "x.1"}
    remove_leftovers(tmp_path / "nowhere", store)
