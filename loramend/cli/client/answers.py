"""What is read of a server's answers. A newer server may say more; `--json` passes on all that it said."""

from datetime import datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from loramend.cli.errors import CommandError
from loramend.contracts.errors import CODES, ErrorCode
from loramend.contracts.job import TERMINAL, Progress


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Item(Answer):
    pointer: str = ""
    detail: str = ""


class ProblemAnswer(Answer):
    """A problem, or what else came in its place."""

    code: str | None = None
    detail: str | None = None
    errors: list[Item] = []

    @property
    def known_code(self) -> ErrorCode | None:
        return next((known for known in CODES if known == self.code), None)


class ResultAnswer(Answer):
    adapter_digest: str | None = None
    repo_id: str | None = None
    published: dict[str, Any] | None = None


class JobAnswer(Answer):
    id: str = ""
    kind: str = "repair"
    status: str
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    source: dict[str, Any] = {}
    threat: str | None = None
    progress: dict[str, Any] | None = None
    cancel_requested: bool = False
    error: ProblemAnswer | None = None
    result: ResultAnswer | None = None

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def seconds(self) -> float | None:
        """From the first start to the end."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class PageAnswer(Answer):
    jobs: list[JobAnswer]
    next_cursor: str | None = None


class EventAnswer(Answer):
    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    data: dict[str, Any] = {}

    @property
    def document(self) -> dict[str, Any]:
        """All that the server said."""
        return self.model_dump(mode="json")

    @property
    def ends(self) -> bool:
        """Whether it is a job's last."""
        return self.type == "status" and self.data.get("status") in TERMINAL


class EventsAnswer(Answer):
    events: list[EventAnswer]


A = TypeVar("A", bound=Answer)


def read(model: type[A], response: httpx.Response) -> A:
    """The body as that answer. Raises CommandError `server_unreachable` where it is something else."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        raise CommandError(
            "server_unreachable",
            f"{response.url} does not answer as a loramend server does; see --server",
        ) from None


def progress_of(told: dict[str, Any] | None) -> Progress | None:
    """A progress event's data; None for a phase or unit that this version does not know."""
    try:
        return Progress.model_validate(told)
    except ValidationError:
        return None
