"""The HTTP application: `create_app()` makes it; `python -m service` runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

import anyio
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from loramend.contracts.job import Job, JobEvents, JobPage
from loramend.contracts.notice import WebhookMessage
from loramend.contracts.report import Report
from loramend.contracts.request import AnalysisRequest, RepairRequest
from service.api import (
    events,
    health,
    hub,
    jobs,
    methods,
    passes,
    problems,
    repair,
    report,
    schema,
    uploads,
    web,
)
from service.api.busy import Busy
from service.api.context import RequestContext
from service.api.gate import Gate
from service.api.guard import Guard
from service.api.head import head_router
from service.api.hub_files import GitIds
from service.api.metrics import Metrics
from service.api.state import Services
from service.jobs.buckets import Buckets, Rate
from service.jobs.connect import async_redis_from_url, redis_from_url
from service.jobs.keys import KeyStore
from service.jobs.passes import Passes
from service.jobs.queue import Dispatcher
from service.jobs.secrets import Sealer, TokenVault
from service.jobs.storage import Storage
from service.jobs.store import JobStore
from service.settings import ServiceSettings

ROUTERS = tuple(
    feature.router for feature in (repair, uploads, jobs, events, report, passes, methods, health, web, hub)
)
HEADS = head_router(ROUTERS)


def create_app(settings: ServiceSettings | None = None) -> FastAPI:
    """The application, with settings from the environment unless given. Connects to nothing yet."""
    settings = settings or ServiceSettings()
    services = _services(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # On a disk that is full, what needs none can still be answered.
        with suppress(OSError):
            await run_in_threadpool(services.spool.open)
        yield
        await services.close()

    app = schema.Described(
        title="loramend",
        version=version("loramend"),
        lifespan=lifespan,
        default_response_class=Response,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    for router in (*ROUTERS, HEADS):
        app.include_router(router)
    problems.install(app)
    app.models = (
        AnalysisRequest, RepairRequest, Job, JobPage, JobEvents, Report, WebhookMessage,
        uploads.Upload, methods.Methods, health.Health,
    )  # fmt: skip
    app.add_middleware(
        Guard,
        gate=_gate(settings, services),
        keys_required=settings.keys_required,
        allowed_hosts=settings.hosts,
    )
    app.add_middleware(
        Busy,
        most=settings.max_concurrent_requests,
        body_seconds=settings.body_seconds,
        least_rate=settings.body_bytes_per_second,
    )
    app.add_middleware(RequestContext, metrics=services.metrics)
    return app


def _gate(settings: ServiceSettings, services: Services) -> Gate:
    return Gate(
        KeyStore(services.redis),
        Passes(services.redis),
        Buckets(services.redis),
        settings_keys=[key.get_secret_value() for key in settings.api_keys],
        requests=Rate(settings.key_requests_per_minute, 60, settings.key_requests_burst),
        received=Rate(settings.key_bytes_per_day, 24 * 3600, settings.key_bytes_per_day),
    )


def _services(settings: ServiceSettings) -> Services:
    broker = settings.broker_url
    redis = redis_from_url(broker)
    sealer = Sealer(settings.secret_key)
    storage = Storage(settings.storage_url, settings.storage_options)
    return Services(
        settings=settings,
        redis=redis,
        events=async_redis_from_url(broker),
        store=JobStore(redis, max_attempts=settings.max_attempts, resend_seconds=settings.resend_seconds),
        storage=storage,
        dispatcher=Dispatcher(broker),
        sealer=sealer,
        vault=TokenVault(redis, sealer),
        metrics=Metrics(),
        git_ids=GitIds(storage),
        uploads=anyio.CapacityLimiter(settings.max_concurrent_uploads),
    )
