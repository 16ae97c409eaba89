"""Who asks, and which jobs there are for them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from loramend.contracts.keys import Scope
from service.jobs.records import JobRecord

# The keys that the server's own settings name belong to it.
SETTINGS_OWNER = "environment"


@dataclass(frozen=True)
class Caller:
    """The holder of an API key, or whoever may ask without one: then `key_id` and `owner` are None."""

    key_id: str | None
    owner: str | None
    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    @property
    def sees_only(self) -> str | None:
        """The owner whose jobs are all the jobs there are for this caller; None for everybody's."""
        return None if self.is_admin else self.owner

    def may(self, scope: Scope) -> bool:
        """Whether the key's scopes hold that one; `admin` holds all."""
        return self.is_admin or scope in self.scopes

    def sees(self, record: JobRecord) -> bool:
        """Whether the job is there for this caller."""
        return self.is_admin or (self.owner is not None and record.owner == self.owner)

    def name(self, text: str) -> str:
        """A name of this caller's choosing, kept apart from the same name of other owners."""
        return text if self.owner is None else f"{self.owner}\0{text}"


# Somebody at this machine, where no key is asked for.
LOCAL = Caller(None, None, frozenset({"admin"}))
# Whoever asks for what is open to all.
NOBODY = Caller(None, None, frozenset())


def caller_of(request: Request) -> Caller:
    """Whom the guard has let in."""
    caller: Caller = request.state.caller
    return caller


Asker = Annotated[Caller, Depends(caller_of)]
