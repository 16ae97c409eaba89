"""Settings of the HTTP process."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from service.api.guard import LOOPBACK_NAMES, is_loopback
from service.jobs.settings import COMMAS, GiB, JobsSettings, MiB


class ServiceSettings(JobsSettings):
    """What `JobsSettings` has, and how the HTTP server listens and whom it answers.

    Read from the environment: `LORAMEND_HOST` and so on.
    """

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; others than loopback need API keys."
    )
    port: int = Field(default=8000, ge=0, le=65535)
    shutdown_seconds: int = Field(
        default=10, ge=0, description="How long requests may take to end when stopped."
    )
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode, COMMAS] = Field(
        default=(),
        description="Admin keys beside those of `loramend keys`; a JSON list, or joined by commas.",
    )
    require_keys: bool = Field(
        default=False,
        description="Ask for an API key on loopback too, as behind a reverse proxy; elsewhere, and with "
        "LORAMEND_API_KEYS, one is always asked for.",
    )
    key_requests_per_minute: int = Field(
        default=600, ge=0, description="Requests a key may send, on average; 0: any number."
    )
    key_requests_burst: int = Field(
        default=200, ge=1, description="Requests a key may send at once, after a pause."
    )
    key_bytes_per_day: int = Field(
        default=64 * GiB, ge=0, description="Bytes of bodies a key may send; 0: any number."
    )
    owner_active_jobs: int = Field(
        default=100, ge=0, description="Unfinished jobs of one owner of keys; 0: any number."
    )
    allowed_hosts: Annotated[tuple[str, ...] | None, NoDecode, COMMAS] = Field(
        default=None,
        description="Names the Host header may hold, without port; '*' takes any, '*.example.org' "
        "subdomains. Unset: any where API keys are asked for, else this machine's own names. A JSON list, or "
        "joined by commas.",
    )
    max_document_bytes: int = Field(
        default=4 * MiB, gt=0, description="Cap on a JSON body or JSON form part."
    )
    max_concurrent_uploads: int = Field(default=16, gt=0)
    max_concurrent_requests: int = Field(
        default=1000,
        gt=0,
        description="Requests worked on at a time, event streams among them; one more is answered 503.",
    )
    body_seconds: float = Field(
        default=60,
        gt=0,
        description="How long a body may pause, and fall behind the rate below; then the answer is 408.",
    )
    body_bytes_per_second: int = Field(
        default=4096, ge=0, description="What a body must bring on average; 0: any number."
    )
    idle_seconds: int = Field(
        default=75,
        gt=0,
        description="How long an idle connection is kept; longer than clients and proxies keep theirs.",
    )
    wait_seconds: int = Field(
        default=60, ge=0, le=60, description="The longest `Prefer: wait` that is honoured."
    )
    keepalive_seconds: float = Field(
        default=15, gt=0, description="Pause after which an event stream sends a comment."
    )

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < 16 for key in value):
            raise ValueError("an API key needs at least 16 characters")
        return value

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that the Host header may hold."""
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        return ("*",) if self.keys_required else LOOPBACK_NAMES

    @property
    def keys_required(self) -> bool:
        """Whether a request needs an API key."""
        return self.require_keys or bool(self.api_keys) or not is_loopback(self.host)
