"""A webhook as it is sent: its body, and the headers that sign it."""

import base64
import hashlib
import hmac

from pydantic import SecretStr

from loramend.contracts.notice import WebhookData, WebhookMessage
from loramend.contracts.webhook import secret_bytes
from service.jobs.records import JobRecord


def body_of(record: JobRecord) -> bytes:
    """What is told of an ended job; the same bytes every time. Raises pydantic's ValidationError for one that
    has not ended."""
    job = f"/jobs/{record.id}"
    links = {"job": job}
    if record.report is not None:
        links["report"] = f"{job}/report"
    if record.archive is not None:
        links["adapter"] = f"{job}/adapter"
    data = {
        "job_id": record.id,
        "kind": record.kind,
        "status": record.status,
        "error": record.error.code if record.error else None,
        "links": links,
    }
    message = WebhookMessage.model_validate(
        {
            "type": f"job.{record.status}",
            "timestamp": record.finished_at,
            "data": WebhookData.model_validate(data),
        }
    )
    return message.model_dump_json().encode()


def headers_of(job_id: str, body: bytes, secret: SecretStr, timestamp: int) -> dict[str, str]:
    """Standard Webhooks' three headers, at that time in s."""
    webhook_id = f"msg_{job_id}"
    signed = b".".join([webhook_id.encode(), str(timestamp).encode(), body])
    digest = hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
