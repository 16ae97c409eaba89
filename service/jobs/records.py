"""A job as the store keeps it: what clients see, and what only the service and its workers need."""

import os
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.data import DataRole
from loramend.contracts.job import Job
from loramend.contracts.names import Sha256
from loramend.contracts.step_base import TextNeed
from loramend.contracts.steps import text_of

Queue = Literal["io", "spectral", "train"]
QUEUES: tuple[Queue, ...] = ("io", "spectral", "train")


class BlobRef(BaseModel):
    """A file in the storage: sha256 in hex, size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Sha256
    size: int = Field(ge=0)


class DataFile(BlobRef):
    """A JSON Lines file of text, and what reports and errors call it."""

    name: str = Field(description="As sent, or `id@commit/file` for a Hub dataset's.")


class FetchedModel(BaseModel):
    """A reference model made available to workers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Hub ID with the resolved commit, or the path as given.")
    path: str | None = Field(default=None, description="Local path, for models under the server's roots.")
    hub_id: str | None = None
    revision: str | None = Field(default=None, description="Resolved commit, for models of the Hub.")
    files: tuple[str, ...] = Field(
        default=(), description="What lay in `path` once the Hub's files were there; a worker needs them all."
    )


class JobRecord(Job):
    """`Job` with the internal fields."""

    phase_queue: Queue = Field(default="spectral", description="Which queue runs the job next.")
    input: dict[str, BlobRef] = Field(
        default_factory=dict,
        description="The source adapter's files by relative path; empty until fetched.",
    )
    output: dict[str, BlobRef] = Field(
        default_factory=dict,
        description="The repaired adapter's repository, as served by the Hub protocol.",
    )
    data_files: dict[DataRole, DataFile] = Field(
        default_factory=dict, description="The files that `data` names; those of the Hub once fetched."
    )
    checkpoints: dict[str, BlobRef] = Field(
        default_factory=dict,
        description="The newest state of each training run, by the run's key; gone when the job ends.",
    )
    starved: int = Field(
        default=0, ge=0, description="How many of its workers the kernel killed for want of memory."
    )
    webhook_secret: str | None = Field(
        default=None, description="Encrypted; gone when the webhook is delivered or given up."
    )
    archive: BlobRef | None = None
    report: BlobRef | None = Field(default=None, description="As JSON.")
    report_html: BlobRef | None = Field(default=None, description="The same report as a page.")
    report_sarif: BlobRef | None = Field(default=None, description="The same report as SARIF 2.1.0.")
    references: dict[Literal["base", "aligned"], FetchedModel] = Field(default_factory=dict)
    source_resolved: dict[str, str] = Field(
        default_factory=dict, description="Hub ID, resolved commit or upload digest, for the report."
    )

    @property
    def text_given(self) -> TextNeed | None:
        """What there is to learn from: labelled examples, plain text, or nothing."""
        return "clean" if "clean" in self.data else "text" if "unlabelled" in self.data else None

    @property
    def runs_model(self) -> bool:
        """Whether a step or the evaluation runs the base model, not just reads its weights."""
        if self.evaluation is not None:
            return True
        # The default recipe learns from text where there is any.
        return (self.text_given if self.steps is None else text_of(self.steps)) is not None

    @property
    def compute_queue(self) -> Queue:
        """The queue of the job's own work, between fetching and publishing."""
        return "train" if self.runs_model else "spectral"

    def public(self) -> Job:
        """What a client may see."""
        return Job.model_validate(self.model_dump(include=set(Job.model_fields)))

    def blobs(self) -> dict[str, BlobRef]:
        """Every blob this record refers to, by digest."""
        results = [self.archive, self.report, self.report_html, self.report_sarif]
        held = (self.input, self.output, self.data_files, self.checkpoints)
        refs = [*results, *(ref for files in held for ref in files.values())]
        return {ref.sha256: ref for ref in refs if ref is not None}


def data_pointer(role: DataRole) -> str:
    """Where a request names the file of that role, as a JSON pointer."""
    return {"evaluation": "/evaluation/data", "triggered": "/evaluation/triggered"}.get(role, f"/{role}")


def new_job_id() -> str:
    """32 hex digits, laid out as a UUIDv7 (RFC 9562): sortable by time, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return f"{number:032x}"
