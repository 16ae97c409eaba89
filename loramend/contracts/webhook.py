"""Who is told that a job has ended: a request's webhook, after Standard Webhooks
(https://www.standardwebhooks.com)."""

import base64
import binascii
import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
_SECRET_BYTES = range(24, 65)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


class Webhook(BaseModel):
    """Where the job's end is told, and the secret that signs it."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2048)] = Field(
        description="https, at a public address; http and other addresses for hosts that the server's "
        "settings name. Redirects are not followed."
    )
    secret: SecretStr = Field(
        description="`whsec_` and 24 to 64 random bytes in base64, known to the receiver; encrypted at rest, "
        "deleted when the end has been told.",
        json_schema_extra={"pattern": r"^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"},
    )

    @field_validator("url")
    @classmethod
    def _one_place(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("must be a URL such as https://example.org/hooks/loramend") from None
        if "@" in parts.netloc or "#" in value:
            raise ValueError("must hold neither user nor fragment")
        if not (_is_ipv6(host) if ":" in host else _NAME.fullmatch(host)) or port == 0:
            raise ValueError("must name a host as DNS does, or an address")
        return value

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        secret_bytes(value)
        return value


class JobWebhook(BaseModel):
    """How far a job's webhook is. Every attempt is an event of the job."""

    model_config = ConfigDict(extra="forbid")

    url: str
    state: Literal["waiting", "delivered", "given_up"] = Field(
        default="waiting", description="`waiting` for the job's end, or for the next attempt."
    )
    attempts: int = Field(default=0, ge=0, description="How often it was tried to deliver it.")


def secret_bytes(secret: SecretStr) -> bytes:
    """What signs. Raises ValueError, which does not quote it."""
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or len(key) not in _SECRET_BYTES:
        raise ValueError(f"must be {SECRET_PREFIX} and 24 to 64 bytes in base64")
    return key


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False
