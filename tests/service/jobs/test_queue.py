"""Messages reach exactly one queue, hold the job's id alone, and need the broker."""

import base64
import json
import socket
from typing import cast

import pytest
import redis

from loramend.contracts.errors import LoramendError
from service.jobs.queue import Dispatcher, Messages


def test_a_message_lies_in_its_own_queue_as_json(broker_url: str, redis_client: "redis.Redis") -> None:
    dispatcher = Dispatcher(broker_url)
    dispatcher.ready()
    dispatcher.send("0" * 32, "io")
    depths = {name: redis_client.llen(f"loramend:mq:{name}") for name in ("io", "spectral", "train")}
    assert depths == {"io": 1, "spectral": 0, "train": 0}
    message = json.loads(cast(str, redis_client.lindex("loramend:mq:io", 0)))
    assert message["content-type"] == "application/json"
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert (args, kwargs) == (["0" * 32], {})
    assert all(str(key).startswith("loramend:") for key in redis_client.keys("*"))
    dispatcher.close()


def test_messages_of_ended_jobs_do_not_stay_with_a_dead_worker(
    broker_url: str, redis_client: "redis.Redis"
) -> None:
    dispatcher = Dispatcher(broker_url)
    raw = {}
    for job_id in ("a" * 32, "b" * 32):
        dispatcher.send(job_id, "io")
        message = json.loads(cast(str, redis_client.rpop("loramend:mq:io")))
        raw[job_id] = json.dumps([message, "loramend", "io"])
    redis_client.hset("loramend:mq:unacked", mapping={**raw, "odd": "not a message"})
    redis_client.zadd("loramend:mq:unacked_index", dict.fromkeys(raw, 1.0))
    Messages(redis_client).remove_ended(lambda job_id: job_id == "a" * 32)
    assert set(redis_client.hkeys("loramend:mq:unacked")) == {"b" * 32, "odd"}
    assert redis_client.zrange("loramend:mq:unacked_index", 0, -1) == ["b" * 32]
    dispatcher.close()


def test_a_broken_channel_is_given_up(
    broker_url: str, redis_client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = Dispatcher(broker_url)

    def broken(*_: object, **__: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'client'")

    monkeypatch.setattr(dispatcher._app, "send_task", broken)
    with pytest.raises(LoramendError) as refused:
        dispatcher.send("0" * 32, "io")
    assert refused.value.code == "broker_unavailable"
    dispatcher.send("0" * 32, "io")
    assert redis_client.llen("loramend:mq:io") == 1
    dispatcher.close()


@pytest.mark.e2e
def test_without_a_broker() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dispatcher = Dispatcher(f"redis://127.0.0.1:{unused.getsockname()[1]}/0")
        for call in (dispatcher.ready, lambda: dispatcher.send("0" * 32, "io")):
            with pytest.raises(LoramendError) as refused:
                call()
            assert refused.value.code == "broker_unavailable"
