"""Messages to the workers. A message holds a job's id and nothing else: the truth is in the job store."""

import base64
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from celery import Celery
from kombu import Exchange
from kombu import Queue as KombuQueue
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from loramend.contracts.errors import LoramendError
from service.jobs.records import QUEUES, Queue
from service.jobs.state import PREFIX

TASK = "loramend.run"
DELIVER_TASK = "loramend.deliver"
_LOG = logging.getLogger("service.queue")
_EXCHANGE = Exchange("loramend", type="direct")
_KEY_PREFIX = f"{PREFIX}mq:"

# Longer than any job may run (worker.settings checks it): an unfinished message must not be delivered twice
# while its worker lives. What died with its worker is found by its lease long before.
VISIBILITY_SECONDS = 26 * 3600


def queue_key(queue: Queue) -> str:
    """The Redis list that holds a queue's waiting messages."""
    return f"{_KEY_PREFIX}{queue}"


def celery_options(broker_url: str) -> dict[str, Any]:
    """The Celery settings that sender and worker share."""
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_SECONDS,
            "global_keyprefix": _KEY_PREFIX,
            "socket_timeout": 30.0,
            "socket_connect_timeout": 5.0,
            "health_check_interval": 30,
        },
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        # Without keys of their own all queues would be bound to the default one, and get every message.
        "task_queues": [KombuQueue(name, _EXCHANGE, routing_key=name) for name in QUEUES],
        "task_default_queue": "spectral",
        "task_default_exchange": _EXCHANGE.name,
        "task_default_routing_key": "spectral",
        "task_create_missing_queues": False,
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2},
        "enable_utc": True,
    }


class Dispatcher:
    """Sends jobs to queues."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._app = _sender(broker_url)

    def send(self, job_id: str, queue: Queue) -> None:
        """Ask the workers of `queue` to go on with the job. Raises LoramendError `broker_unavailable`."""
        self._send(TASK, job_id, queue)

    def deliver(self, job_id: str) -> None:
        """Ask the workers of queue `io` to deliver the job's webhook. Raises LoramendError
        `broker_unavailable`."""
        self._send(DELIVER_TASK, job_id, "io")

    def _send(self, task: str, job_id: str, queue: Queue) -> None:
        try:
            self._app.send_task(task, args=[job_id], queue=queue)
        except (OperationalError, RedisError, OSError) as error:
            raise _unavailable() from error
        except Exception as error:
            # A pooled channel whose connection broke at a bad moment fails anyhow, and would again.
            _LOG.warning("a message could not be sent: connecting anew", exc_info=True)
            self._app = _sender(self._broker_url)
            raise _unavailable() from error

    def ready(self) -> None:
        """Raises LoramendError `broker_unavailable` where the broker does not answer."""
        try:
            with self._app.connection_for_write(connect_timeout=2.0) as connection:
                connection.ensure_connection(max_retries=1, timeout=3)
        except (OperationalError, RedisError, OSError) as error:
            raise _unavailable() from error

    def close(self) -> None:
        """Close the pooled connections."""
        self._app.close()


def _sender(broker_url: str) -> "Celery":
    app = Celery("loramend", set_as_current=False)
    app.conf.update(celery_options(broker_url))
    return app


class Messages:
    """The messages as they lie in the broker."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def waiting(self, queues: Iterable[Queue]) -> int:
        """How many wait in these queues."""
        return sum(int(self._redis.llen(queue_key(queue))) for queue in queues)

    def remove_ended(self, has_ended: Callable[[str], bool]) -> None:
        """Remove those that a worker took and has not done with though their jobs have ended: of a worker
        that was killed they would stay until the visibility timeout."""
        for tag, raw in self._redis.hscan_iter(f"{_KEY_PREFIX}unacked"):
            job_id = _job_of(raw)
            if job_id is not None and has_ended(job_id):
                pipe = self._redis.pipeline()
                pipe.zrem(f"{_KEY_PREFIX}unacked_index", tag)
                pipe.hdel(f"{_KEY_PREFIX}unacked", tag)
                pipe.execute()


def _job_of(raw: str) -> str | None:
    """The job that a message kept by kombu names; None for one that cannot be read."""
    try:
        message = json.loads(raw)[0]
        args, _, _ = json.loads(base64.b64decode(message["body"]))
        return str(args[0])
    except (ValueError, LookupError, TypeError):
        return None


def _unavailable() -> LoramendError:
    return LoramendError("broker_unavailable", "The message broker did not answer. Try again later.")
