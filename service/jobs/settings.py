"""Settings that the service and the worker share. Each process extends `JobsSettings` with its own."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

from cryptography.fernet import Fernet
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from loramend.adapter.limits import Limits
from loramend.data.jsonl import DataLimits

MiB = 1024**2
GiB = 1024**3


def _split_commas(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _as_urls_have_them(hosts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(host.lower().rstrip(".") for host in hosts)


COMMAS = BeforeValidator(_split_commas)
"""A variable's list, as JSON or joined by commas. With NoDecode, or pydantic reads it as JSON alone."""

Hosts = Annotated[tuple[str, ...], NoDecode, COMMAS, AfterValidator(_as_urls_have_them)]
"""Names of hosts, without port, in any spelling."""


class JobsSettings(BaseSettings):
    """Where jobs, messages and files are kept, and what an untrusted adapter may cost.

    Read from the environment: `LORAMEND_BROKER_URL` and so on.
    """

    model_config = SettingsConfigDict(
        env_prefix="LORAMEND_", extra="ignore", validate_by_name=True, hide_input_in_errors=True
    )

    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Redis server that holds jobs and messages: redis://, rediss:// or "
        "redis+socket://:password@/path.sock?virtual_host=0.",
        repr=False,
    )
    storage_url: str = Field(
        default="file:///var/lib/loramend/blobs", description="Any fsspec URL, such as s3://bucket/prefix."
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="Options for that filesystem, as JSON.", repr=False
    )
    secret_key: SecretStr | None = Field(
        default=None, description="Fernet key that encrypts what requests bring of secrets."
    )
    model_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Folders under which a request may name local models; a JSON list, or joined by "
        f"'{os.pathsep}'.",
    )
    webhook_private_hosts: Hosts = Field(
        default=(),
        description="Hosts to which webhooks may go wherever they are, and over plain http too, such as a "
        "receiver in the same network; without port; a JSON list, or joined by commas.",
    )
    max_upload_bytes: int = Field(default=2 * GiB, gt=0)
    max_unpacked_bytes: int = Field(default=4 * GiB, gt=0)
    max_data_bytes: int = Field(default=64 * MiB, gt=0, description="Cap on one JSON Lines file of text.")
    upload_seconds: float = Field(
        default=24 * 3600, gt=0, description="How long an upload is kept that no job uses."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="How many workers a job may lose before it is failed."
    )
    resend_seconds: float = Field(
        default=60, gt=0, description="A job that waits longer than this is sent again, then less often."
    )

    def adapter_limits(self) -> Limits:
        """The caps for untrusted adapters."""
        return Limits(max_archive_bytes=self.max_upload_bytes, max_unpacked_bytes=self.max_unpacked_bytes)

    def data_limits(self) -> DataLimits:
        """The caps for untrusted text."""
        return DataLimits(max_bytes=self.max_data_bytes)

    @field_validator("secret_key")
    @classmethod
    def _fernet(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                Fernet(value.get_secret_value())
            except ValueError:
                raise ValueError("must be a Fernet key: 32 bytes in URL-safe base64") from None
        return value

    @field_validator("model_roots", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [part for part in value.split(os.pathsep) if part]


def explain(error: ValidationError) -> str:
    """What is wrong with the settings, a line each, by the variable's name; no value is shown."""
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        # An aliased setting goes by its variable's name already.
        name = "_".join(str(part) for part in item["loc"]).upper().removeprefix("LORAMEND_")
        lines.append(f"LORAMEND_{name}: {item['msg']}")
    return "\n".join(lines)
