"""What a webhook's receiver is told."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from loramend.contracts.errors import ErrorCode
from loramend.contracts.request import JobKind


class WebhookData(BaseModel):
    """The job that ended. Ask the service for the rest."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    kind: JobKind
    status: Literal["succeeded", "failed", "canceled"]
    error: ErrorCode | None = Field(description="Why it failed.")
    links: dict[Literal["job", "report", "adapter"], str] = Field(
        description="Paths at the service: the job and, where there are some, its report and adapter."
    )


class WebhookMessage(BaseModel):
    """The body of a webhook, the same at every attempt. Its headers: `webhook-id` (the same at every attempt,
    too), `webhook-timestamp` (the attempt's time in s) and `webhook-signature` (`v1,` and, in base64, the
    HMAC-SHA256 under the secret's bytes of ID, timestamp and body, joined by dots)."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["job.succeeded", "job.failed", "job.canceled"]
    timestamp: datetime = Field(description="When the job ended.")
    data: WebhookData
