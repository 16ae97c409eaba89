"""Settings of a worker process."""

from math import ceil
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from service.jobs.outbox import Attempts
from service.jobs.queue import VISIBILITY_SECONDS
from service.jobs.retention import Retention
from service.jobs.settings import GiB, Hosts, JobsSettings


class WorkerSettings(JobsSettings):
    """What `JobsSettings` has, and how this worker computes, where it keeps files, and which Hub it asks.

    Read from the environment: `LORAMEND_DEVICE` and so on; the Hub's endpoint and token from the variables
    that huggingface_hub knows, too.
    """

    device: str | None = Field(
        default=None,
        description="Where dense products run: cpu, cuda, cuda:1, …; unset takes the GPU where there is one.",
    )
    sign_key: Path | None = Field(
        default=None,
        description="Private EC key in PEM, without a password, that signs every repaired adapter.",
    )
    work_dir: Path = Field(
        default=Path("/var/lib/loramend/work"), description="For the files of the job being run."
    )
    cache_dir: Path = Field(
        default=Path("/var/lib/loramend/cache"),
        description="For models of the Hub and displacement subspaces; shared by the workers of a machine.",
    )
    hub_endpoint: str = Field(
        default="https://huggingface.co",
        validation_alias=AliasChoices("LORAMEND_HUB_ENDPOINT", "HF_ENDPOINT"),
    )
    hub_token: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("LORAMEND_HUB_TOKEN", "HF_TOKEN"),
        description="For jobs that bring no token of their own.",
    )
    hub_private_hosts: Hosts = Field(
        default=(),
        description="Hosts beside the Hub's own to which its redirects may lead although they are not at "
        "public addresses, such as a mirror's storage; a JSON list, or joined by commas.",
    )
    hub_seconds: float = Field(
        default=10, gt=0, description="Longest wait for an answer; uploads and commits get 12 times as long."
    )
    hub_attempts: int = Field(
        default=4, ge=1, description="How often the Hub is asked before it counts as unavailable."
    )
    webhook_seconds: float = Field(default=10, gt=0, description="Longest that one attempt may take.")
    webhook_attempts: int = Field(
        default=8, ge=1, description="How often it is tried to deliver a webhook before it is given up."
    )
    webhook_pause_seconds: float = Field(
        default=5,
        gt=0,
        description="Wait before the second attempt; before each further one it is four times as long.",
    )
    max_model_bytes: int = Field(
        default=1000 * GiB, gt=0, description="Largest download of one reference model."
    )
    bank: Path | None = Field(
        default=None,
        description="Bank file of `loramend bank build` that every inspection and repair is set beside; read "
        "anew for each job.",
    )
    lease_seconds: float = Field(
        default=30, gt=0, description="A job whose worker is silent for this long is given to another."
    )
    reap_seconds: float = Field(default=5, gt=0, description="How often to look for such jobs.")
    progress_seconds: float = Field(
        default=0.5, ge=0, description="How often a job tells its progress and asks whether to stop."
    )
    shutdown_seconds: float = Field(
        default=10, ge=0, description="How long a running job may still take before it is handed back."
    )
    retention_seconds: float = Field(
        default=30 * 24 * 3600,
        ge=0,
        description="How long a job and its files stay after it has ended; 0: for ever.",
    )
    retention_bytes: int = Field(
        default=100 * GiB,
        ge=0,
        description="What all stored files may take; beyond that the oldest ended jobs and unused uploads "
        "go. 0: any number.",
    )
    phase_seconds: int = Field(default=6 * 3600, gt=0, description="How long one phase of a job may take.")
    job_seconds: int = Field(
        default=24 * 3600,
        gt=0,
        description="How long a job may take from its first start, with its waits and further attempts.",
    )
    memory_bytes: int = Field(
        default=0, ge=0, description="Memory that the process of a job may use; 0: what the machine has."
    )
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @field_validator("hub_endpoint")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _visible_long_enough(self) -> "WorkerSettings":
        if self.hard_seconds >= VISIBILITY_SECONDS:
            raise ValueError(f"phase_seconds must stay under {VISIBILITY_SECONDS - 60}")
        return self

    @property
    def webhook_limit(self) -> int:
        """When an attempt that does not end by itself is killed: looking up a name may take its time."""
        return ceil(self.webhook_seconds) + 30

    def attempts(self) -> Attempts:
        """How a webhook is tried."""
        most, pause = self.webhook_attempts, self.webhook_pause_seconds
        return Attempts(most, pause, longest=self.webhook_limit + 10)

    def retention(self) -> Retention:
        """How long and how much is kept."""
        return Retention(self.retention_seconds, self.retention_bytes, self.upload_seconds)

    @property
    def hard_seconds(self) -> int:
        """When a phase that does not stop by itself is killed."""
        return self.phase_seconds + 60
