"""What a job looks like to a client: its state, progress and events."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.data import DataRef, DataRole, EvaluationSpec
from loramend.contracts.errors import Problem
from loramend.contracts.request import JobKind, ModelRef, Publish, Source
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import Step
from loramend.contracts.webhook import JobWebhook

JobStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
TERMINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "canceled"})

Phase = Literal["fetch", "measure", "repair", "train", "evaluate", "controls", "write", "publish"]


class Progress(BaseModel):
    """How far a phase is: `done` of `total` units (files, modules or bytes, as `unit` says)."""

    model_config = ConfigDict(extra="forbid")

    phase: Phase
    done: int = Field(ge=0)
    total: int = Field(ge=0)
    unit: Literal["files", "modules", "bytes", "steps", "examples"] = "modules"
    detail: str = Field(default="", description="What is being worked on: a module's or file's name.")
    values: dict[str, float] = Field(
        default_factory=dict,
        description="While training: loss, omega (Ω, where it is on) and samples_per_second.",
    )


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Progress that nobody watches."""


class Published(BaseModel):
    """Where the result was pushed."""

    model_config = ConfigDict(extra="forbid")

    repo_id: str
    commit: str
    url: str


class JobResult(BaseModel):
    """What a finished repair left behind. Digests are sha256 in hex."""

    model_config = ConfigDict(extra="forbid")

    report_digest: str
    adapter_digest: str | None = Field(default=None, description="Of the archive; None for an inspection.")
    repo_id: str | None = Field(
        default=None, description="The ID under which this service serves the adapter."
    )
    revision: str | None = Field(default=None, description="40 hex digits, as the Hub's protocol wants.")
    published: Published | None = None


class Job(BaseModel):
    """A job as GET /jobs/{id} answers it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    kind: JobKind
    status: JobStatus
    owner: str | None = Field(
        default=None, description="Whose API key asked for it; null where no key was needed."
    )
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = Field(default=0, ge=0, description="How many times a worker has taken the job up.")
    source: Source
    threat: Threat | None = None
    steps: list[Step] | None = Field(default=None, description="As asked; the report names those taken.")
    base: ModelRef | None = None
    aligned: ModelRef | None = None
    data: dict[DataRole, DataRef] = Field(
        default_factory=dict, description="Text the job learns from and is measured on."
    )
    evaluation: EvaluationSpec | None = None
    validation_share: float = 0.2
    publish: Publish | None = None
    webhook: JobWebhook | None = None
    seed: int = 0
    progress: Progress | None = None
    cancel_requested: bool = False
    error: Problem | None = None
    result: JobResult | None = None


class JobPage(BaseModel):
    """One page of jobs, newest first; pass `next_cursor` as `cursor` for the next."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[Job]
    next_cursor: str | None = None


class JobEvent(BaseModel):
    """Something that happened to a job. `id` grows; give it as Last-Event-ID to go on from there."""

    model_config = ConfigDict(extra="forbid")

    id: str
    at: datetime
    type: Literal["status", "progress", "webhook"]
    data: dict[str, Any] = Field(
        description="`status` events: {status, error?}; `progress` events: a Progress; `webhook` events, "
        "after the job's end: {state, attempt, detail}, the state as in the job's `webhook`."
    )


class JobEvents(BaseModel):
    """The events of a job, oldest first."""

    model_config = ConfigDict(extra="forbid")

    events: list[JobEvent]
