"""From a request for a job to the job: read, check, store, send."""

import hashlib
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from fastapi.responses import Response
from pydantic import ValidationError
from pydantic_core import to_json
from redis.exceptions import RedisError

from loramend.contracts.data import DataRole
from loramend.contracts.errors import AdapterError, LoramendError, RequestError
from loramend.contracts.job import TERMINAL
from loramend.contracts.request import AnalysisRequest, JobKind, RepairRequest
from loramend.contracts.webhook import JobWebhook
from service.api.body import Form, media_type_of, parse_object, read_document, read_form
from service.api.caller import Caller
from service.api.data import check_has_data, checked_data, data_of, with_parts
from service.api.documents import json_response
from service.api.events import wait_for_end
from service.api.negotiation import preferred_wait
from service.api.problems import invalid_document
from service.api.state import Services
from service.jobs.intake import store_data, take_upload
from service.jobs.records import BlobRef, DataFile, JobRecord, new_job_id
from service.jobs.roots import check_model_path
from service.jobs.targets import check_target

_LOG = logging.getLogger("service.jobs")
RETRY_SECONDS = 2


@dataclass(frozen=True)
class Submission:
    """A request as read, and whose it is. `digest` covers the document and the files, for idempotency."""

    caller: Caller
    kind: JobKind
    request: AnalysisRequest
    digest: str
    form: Form | None


async def submit(
    services: Services, caller: Caller, request: Request, kind: JobKind, key: str | None
) -> Response:
    """The whole of POST /repair and POST /inspect. Nothing received is left on the disk."""
    async with contextmanager_in_threadpool(services.spool.folder()) as folder:
        submission = await _read(services, caller, request, kind, folder)
        record = await run_in_threadpool(_accept, services, submission, key, folder)
    headers = {"Location": f"/jobs/{record.id}", "Retry-After": str(RETRY_SECONDS)}
    seconds = preferred_wait(request.headers.getlist("prefer"), services.settings.wait_seconds)
    if seconds is not None:
        try:
            await wait_for_end(services, record.id, seconds)
            record = await run_in_threadpool(services.job, record.id, caller)
        except RedisError as error:
            # The job is accepted, whatever becomes of the wait.
            _LOG.warning("job %s: waiting failed: %s", record.id, error)
        headers["Preference-Applied"] = f"wait={seconds}"
    if record.status in TERMINAL:
        del headers["Retry-After"]
    return json_response(record.public(), status=200 if record.status in TERMINAL else 202, headers=headers)


async def _read(
    services: Services, caller: Caller, request: Request, kind: JobKind, folder: Path
) -> Submission:
    settings = services.settings
    media, _ = media_type_of(request)
    raw, form = b"", None
    if media == "application/json":
        raw = await read_document(request, settings.max_document_bytes)
    elif media == "multipart/form-data":
        form = await read_form(
            request,
            folder,
            max_bytes=settings.max_upload_bytes,
            max_document_bytes=settings.max_document_bytes,
        )
    else:
        raise RequestError(
            "unsupported_media_type",
            "Send application/json, or multipart/form-data with an adapter file.",
            where="/header/Content-Type",
        )
    # A document may be megabytes long: other requests go on meanwhile.
    return await run_in_threadpool(_submission, caller, kind, raw, form)


def _submission(caller: Caller, kind: JobKind, raw: bytes, form: Form | None) -> Submission:
    document = parse_object(raw) if form is None else with_parts(_with_source(form), form.files)
    return Submission(caller, kind, _validated(kind, document), _digest(kind, document, form), form)


def _with_source(form: Form) -> dict[str, Any]:
    document = dict(form.documents.get("request", {}))
    if "source" in document:
        raise RequestError(
            "request_invalid", "Leave it out: the adapter file is the source.", where="/source"
        )
    document["source"] = {"upload": form.files["adapter"].sha256, "config": form.documents.get("config")}
    return document


def _validated(kind: JobKind, document: dict[str, Any]) -> AnalysisRequest:
    model = RepairRequest if kind == "repair" else AnalysisRequest
    try:
        # JSON mode: what JSON Schema would refuse, such as "5" for a number, is refused.
        return model.model_validate_json(to_json(document), strict=True)
    except ValidationError as error:
        raise invalid_document(error, document) from None


def _digest(kind: JobKind, document: dict[str, Any], form: Form | None) -> str:
    filenames = {name: file.filename for name, file in form.files.items()} if form else {}
    told = {"kind": kind, "document": document, "filenames": filenames}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _accept(services: Services, submission: Submission, key: str | None, folder: Path) -> JobRecord:
    """The job: a new one, or the one that this key and body gave before."""
    job_id = new_job_id()
    if key is None:
        return _create(services, submission, job_id, None, folder)
    key = submission.caller.name(key)
    with services.store.claiming(key, submission.digest, job_id) as given:
        if given != job_id:
            return services.job(given, submission.caller)
        return _create(services, submission, job_id, key, folder)


def _create(
    services: Services, submission: Submission, job_id: str, claim: str | None, folder: Path
) -> JobRecord:
    asked = submission.request
    owner, max_active = submission.caller.owner, services.settings.owner_active_jobs
    if owner is not None:
        services.store.check_active(owner, max_active)
    _check_models(services, asked)
    hook = _webhook(services, asked)
    texts: dict[DataRole, tuple[Path, str]] = {}
    if isinstance(asked, RepairRequest):
        _check_recipe(asked)
        check_has_data(asked)
        parts = submission.form.files if submission.form else {}
        texts = checked_data(services, submission.caller, data_of(asked), parts, folder)
    try:
        if asked.hub_token is not None:
            services.vault.put(job_id, asked.hub_token)
        files = _take(services, submission, job_id, folder)
        data = store_data(texts, job_id=job_id, storage=services.storage, store=services.store)
        record = _record(submission, job_id, files, data).model_copy(update=hook)
        stored = services.store.create(record, idempotency=claim, max_active=max_active)
    except RedisError:
        # The job may have been stored all the same; a token without one expires.
        raise
    except BaseException:
        services.vault.delete(job_id)
        raise
    _send(services, stored)
    return stored


def _record(
    submission: Submission, job_id: str, files: dict[str, BlobRef], data_files: dict[DataRole, DataFile]
) -> JobRecord:
    asked = submission.request
    own: dict[str, Any] = {}
    if isinstance(asked, RepairRequest):
        same = ("threat", "steps", "publish", "evaluation", "validation_share")
        own = {name: getattr(asked, name) for name in same} | {"data": data_of(asked)}
    record = JobRecord(
        id=job_id,
        kind=submission.kind,
        status="queued",
        owner=submission.caller.owner,
        created_at=datetime.now(UTC),
        source=asked.source,
        base=asked.base,
        aligned=asked.aligned,
        seed=asked.seed,
        input=files,
        data_files=data_files,
        source_resolved={"upload": asked.source.upload} if asked.source.upload else {},
        **own,
    )
    named = [record.source, record.base, record.aligned, *record.data.values()]
    hub = record.publish is not None or any(ref is not None and ref.hub_id for ref in named)
    return record.model_copy(update={"phase_queue": "io" if hub else record.compute_queue})


def _send(services: Services, record: JobRecord) -> None:
    """A job whose message is lost is sent again by the reaper, so it is accepted all the same."""
    try:
        services.dispatcher.send(record.id, record.phase_queue)
    except LoramendError as error:
        _LOG.warning("job %s waits for the reaper: %s", record.id, error)


def _webhook(services: Services, asked: AnalysisRequest) -> dict[str, Any]:
    """The record's fields of the webhook, its secret sealed."""
    if asked.webhook is None:
        return {}
    url, secret = asked.webhook.url, asked.webhook.secret
    check_target(url, services.settings.webhook_private_hosts, where="/webhook/url")
    sealed = services.sealer.seal(secret, "webhooks", "/webhook/secret")
    return {"webhook": JobWebhook(url=url), "webhook_secret": sealed}


def _check_models(services: Services, asked: AnalysisRequest) -> None:
    for name, model in (("base", asked.base), ("aligned", asked.aligned)):
        if model is not None and model.path is not None:
            check_model_path(model.path, services.settings.model_roots, where=f"/{name}/path")


def _check_recipe(asked: RepairRequest) -> None:
    """Refuse what no worker could do. A base that is not given may still be named by the adapter's own
    config, which the worker reads; an aligned model is never guessed."""
    if asked.steps is None or asked.aligned is not None:
        return
    readers = [step.type for step in asked.steps if "aligned" in step.needs]
    if readers:
        raise RequestError(
            "reference_required",
            f"{', '.join(readers)} reads the aligned model: give `aligned`.",
            where="/aligned",
        )


def _take(services: Services, submission: Submission, job_id: str, folder: Path) -> dict[str, BlobRef]:
    """Check the adapter's files and store them, held for the job; nothing for a Hub source."""
    source = submission.request.source
    if source.upload is None:
        return {}
    if submission.form is not None:
        sent = submission.form.files["adapter"]
        path, filename = sent.path, sent.filename
        services.metrics.uploaded(sum(file.size for file in submission.form.files.values()))
    else:
        ref = services.upload(source.upload, submission.caller)
        if ref is None:
            raise AdapterError(
                "adapter_not_found",
                f"No upload has that digest: PUT it to /uploads/{source.upload} first.",
                where="/source/upload",
            )
        path, filename = folder / "adapter", ""
        services.storage.fetch(ref, path)
    return take_upload(
        path,
        filename,
        source.config,
        job_id=job_id,
        storage=services.storage,
        store=services.store,
        limits=services.settings.adapter_limits(),
    )
