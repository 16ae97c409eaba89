"""The clients a worker process works with."""

from dataclasses import dataclass

from service.jobs.connect import redis_from_url
from service.jobs.outbox import Outbox
from service.jobs.queue import Dispatcher, Messages
from service.jobs.retention import Expiry
from service.jobs.secrets import Sealer, TokenVault
from service.jobs.storage import Storage
from service.jobs.store import JobStore
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Tools:
    """Not to be carried over a fork: parent and child each open their own."""

    expiry: Expiry
    store: JobStore
    storage: Storage
    sealer: Sealer
    vault: TokenVault
    outbox: Outbox
    dispatcher: Dispatcher
    messages: Messages


def open_tools(settings: WorkerSettings) -> Tools:
    """Clients after the settings. Nothing connects before it is used."""
    redis = redis_from_url(settings.broker_url)
    store = JobStore(redis, max_attempts=settings.max_attempts, resend_seconds=settings.resend_seconds)
    sealer = Sealer(settings.secret_key)
    storage = Storage(settings.storage_url, settings.storage_options)
    return Tools(
        expiry=Expiry(redis, store, storage, settings.retention()),
        store=store,
        storage=storage,
        sealer=sealer,
        vault=TokenVault(redis, sealer),
        outbox=Outbox(redis, settings.attempts(), resend_seconds=settings.resend_seconds),
        dispatcher=Dispatcher(settings.broker_url),
        messages=Messages(redis),
    )
