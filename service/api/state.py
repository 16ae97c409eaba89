"""What the endpoints work with: one set of clients for each application."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

import anyio
from fastapi import Depends, Request
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from loramend.contracts.errors import RequestError
from service.api.caller import Caller
from service.api.hub_files import GitIds
from service.api.metrics import Metrics
from service.api.spool import Spool
from service.jobs.queue import Dispatcher
from service.jobs.records import BlobRef, JobRecord
from service.jobs.secrets import Sealer, TokenVault
from service.jobs.storage import Storage
from service.jobs.store import JobStore
from service.settings import ServiceSettings


@dataclass(frozen=True)
class Services:
    """Clients and settings shared by all requests.

    stopping  set when the server is asked to stop: what waits for events then ends
    uploads   bounds how many upload bodies are received at a time, each of which holds a thread
    spool     where bodies lie while they are taken in
    """

    settings: ServiceSettings
    redis: "Redis"
    events: "AsyncRedis"
    store: JobStore
    storage: Storage
    dispatcher: Dispatcher
    sealer: Sealer
    vault: TokenVault
    metrics: Metrics
    git_ids: GitIds
    uploads: anyio.CapacityLimiter
    spool: Spool = field(default_factory=Spool)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        """Close the connections."""
        await self.events.aclose()
        self.redis.close()
        self.dispatcher.close()
        self.spool.close()

    def job(self, job_id: str, caller: Caller) -> JobRecord:
        """The job, or RequestError `not_found` where there is none for this caller."""
        record = self.store.get(job_id)
        if record is None or not caller.sees(record):
            raise RequestError("not_found", f"There is no job {job_id}.")
        return record

    def upload(self, sha256: str, caller: Caller) -> BlobRef | None:
        """The upload with that digest; None where there is none for this caller."""
        owner = caller.sees_only
        if owner is not None and not self.store.blobs.granted(sha256, owner):
            return None
        return self.storage.exists(sha256)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(_services)]
