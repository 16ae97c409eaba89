"""Messages reach exactly one queue, hold the job's id alone, and need the broker."""

import base64
import json
import socket
from typing import cast

import pytest
import redis

from loramend.contracts.errors import LoramendError
from service.jobs.queue import Dispatcher


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


@pytest.mark.e2e
def test_without_a_broker() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dispatcher = Dispatcher(f"redis://127.0.0.1:{unused.getsockname()[1]}/0")
        for call in (dispatcher.ready, lambda: dispatcher.send("0" * 32, "io")):
            with pytest.raises(LoramendError) as refused:
                call()
            assert refused.value.code == "broker_unavailable"
