"""Jobs that a worker would have finished, written through the job store."""

import hashlib
from typing import Any

from loramend.contracts.job import JobResult, JobStatus
from service.api.state import Services
from service.jobs.lease import Lease
from service.jobs.records import BlobRef, JobRecord
from tests.service.api.adapters import folder, tar_gz
from tests.service.jobs.jobs import new_record

REVISION = "0123456789abcdef0123456789abcdef01234567"
PAGE = "<!doctype html><title>‖ΔW‖</title>".encode()
SARIF = b'{"version":"2.1.0"}'


def queued(services: Services, **fields: Any) -> JobRecord:
    """A repair that nobody has begun."""
    return services.store.create(new_record(**fields))


def begun(services: Services, record: JobRecord) -> Lease:
    """The lease of a worker that has taken the job up."""
    lease = services.store.acquire(record.id, "worker", 60)
    assert lease is not None
    return lease


def put(services: Services, content: bytes) -> BlobRef:
    services.store.blobs.hold([hashlib.sha256(content).hexdigest()], "test", 60)
    return services.storage.put_bytes(content)


def repaired(
    services: Services,
    files: dict[str, bytes] | None = None,
    told: bytes = b'{"schema_version":"1.0"}',
    **fields: Any,
) -> JobRecord:
    """A succeeded repair whose repository holds these files, or a small adapter, with that report."""
    files = folder() if files is None else files
    record = queued(services, **fields)
    lease = begun(services, record)
    archive, report = put(services, tar_gz(files)), put(services, told)
    page, sarif = put(services, PAGE), put(services, SARIF)
    return services.store.finish(
        lease,
        "succeeded",
        result=JobResult(
            report_digest=report.sha256,
            adapter_digest=archive.sha256,
            repo_id=f"repaired/{record.id}",
            revision=REVISION,
        ),
        output={name: put(services, content) for name, content in files.items()},
        archive=archive,
        report=report,
        report_html=page,
        report_sarif=sarif,
    )


def ended(services: Services, status: JobStatus) -> JobRecord:
    """A repair that ended without a result."""
    return services.store.finish(begun(services, queued(services)), status)
