"""API keys: what one looks like, and what is told of it."""

import re
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("read", "submit")

# Fixed lengths and a prefix of their own: scanners of repositories and logs can tell keys from other text.
KEY = re.compile(r"loramend_(?P<id>[0-9a-f]{12})_[0-9a-f]{48}")
KEY_ID = r"^[0-9a-f]{12}$"
OWNER = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"

Owner = Annotated[str, StringConstraints(pattern=OWNER)]


class ApiKey(BaseModel):
    """A key as it is listed: everything but the key itself, which nobody has but its user.

    All keys of an owner see the owner's jobs; an `admin` key sees everybody's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=KEY_ID)]
    owner: Owner
    scopes: tuple[Scope, ...] = Field(
        min_length=1, description="read: look at jobs; submit: change them; admin: both, for all owners."
    )
    created_at: datetime
    expires_at: datetime | None = Field(default=None, description="Refused from then on; null never.")

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    @field_validator("scopes")
    @classmethod
    def _in_order(cls, value: tuple[Scope, ...]) -> tuple[Scope, ...]:
        return tuple(scope for scope in SCOPES if scope in value)


class NewApiKey(ApiKey):
    """A key just made: the one time that `key` is told."""

    key: str = Field(pattern=f"^{KEY.pattern}$", repr=False)


class ApiKeys(BaseModel):
    """All keys, oldest first."""

    model_config = ConfigDict(extra="forbid")

    keys: list[ApiKey]
