"""A worker that takes no messages is told from one that has none to take, or is busy."""

import time

import pytest
import redis

from service.jobs.lease import Lease
from service.jobs.queue import Messages, queue_key
from worker.process import WorkerProcess
from worker.stall import Stall


@pytest.fixture
def process() -> WorkerProcess:
    return WorkerProcess(["spectral", "train"])


@pytest.fixture
def stall(redis_client: "redis.Redis", process: WorkerProcess) -> Stall:
    return Stall(Messages(redis_client), process, seconds=0.05)


def looks(stall: Stall) -> list[bool]:
    first = [stall.look(), stall.look()]
    time.sleep(0.06)
    return [*first, stall.look()]


def test_messages_left_lying_are_noticed_after_a_while(stall: Stall, redis_client: "redis.Redis") -> None:
    assert looks(stall) == [False, False, False]
    redis_client.lpush(queue_key("io"), "not this worker's")
    assert looks(stall) == [False, False, False]
    redis_client.lpush(queue_key("train"), "message")
    assert looks(stall) == [False, False, True]


def test_a_worker_that_is_busy_or_stops_is_not_stalled(
    stall: Stall, redis_client: "redis.Redis", process: WorkerProcess
) -> None:
    redis_client.lpush(queue_key("train"), "message")
    with process.holding(Lease("0" * 32, 1, process.name)):
        assert looks(stall) == [False, False, False]
    stall.look()
    process.take()
    time.sleep(0.06)
    assert not stall.look()
    process.stop_in(60)
    assert looks(stall) == [False, False, False]
