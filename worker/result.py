"""What a finished job says about its files."""

import hashlib
from collections.abc import Mapping

from loramend.contracts.job import JobResult
from service.jobs.records import BlobRef, JobRecord

_NAMESPACE = "repaired"


def result_of(record: JobRecord) -> JobResult:
    """The result of a job whose files are stored."""
    assert record.report is not None, "every job that ends well has a report"
    if record.archive is None:
        return JobResult(report_digest=record.report.sha256)
    return JobResult(
        report_digest=record.report.sha256,
        adapter_digest=record.archive.sha256,
        repo_id=f"{_NAMESPACE}/{record.id}",
        revision=revision_of(record.output),
    )


def revision_of(files: Mapping[str, BlobRef]) -> str:
    """40 hex digits that change with any file's path or content: this service's commit id."""
    listing = "".join(f"{name}\0{ref.sha256}\n" for name, ref in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()[:40]
