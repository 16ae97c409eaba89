"""A Hugging Face Hub as loramend reaches it: bounded in time, retried, its errors told in our own codes.

huggingface_hub is used nowhere else but in `loramend.cli` and in the worker, which builds on this module, so
that the library itself knows no Hub. Nothing here needs typer.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, get_session, set_client_factory
from huggingface_hub.errors import (
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from loramend.cli.hub.addresses import CheckedBackend
from loramend.cli.hub.environment import HUGGINGFACE
from loramend.contracts.errors import ErrorCode, JobError, LoramendError, RequestError

_LONGEST_PAUSE = 30.0
_UPLOAD_FACTOR = 12  # the Hub answers commits and uploads much later than questions

T = TypeVar("T")


@dataclass(frozen=True)
class Hub:
    """A Hub, and whom we are to it.

    cache_dir  where models are kept between jobs, in huggingface_hub's layout
    token      None asks without one, even where the machine's user has logged in
    seconds    longest wait for the Hub to answer or to send on; uploads and commits get 12 times as long
    attempts   how often a question is put before the Hub counts as unavailable
    pause      seconds before the second attempt, doubled with every further one
    trusted    hosts that it may send us on to wherever they are, itself among them: others have to be at
               public addresses. None lets all be anywhere
    """

    cache_dir: Path
    endpoint: str = HUGGINGFACE
    token: str | None = field(default=None, repr=False)
    seconds: float = 10.0
    attempts: int = 4
    pause: float = 0.5
    trusted: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.token and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            # An HTTP header cannot hold it, and the error about that would quote it.
            raise RequestError("hub_forbidden", "The Hub token given holds characters that no token has.")

    def api(self) -> HfApi:
        """huggingface_hub's client for this Hub."""
        _bound_session(self.seconds, self.trusted)
        return HfApi(
            endpoint=self.endpoint,
            token=self.token or False,
            library_name="loramend",
            library_version=metadata.version("loramend"),
        )

    def call(
        self,
        what: str,
        work: Callable[[HfApi], T],
        *,
        attempts: int | None = None,
        where: str | None = None,
    ) -> T:
        """Do `work`, again where the Hub is out of reach for the moment; `what` names the repository.

        Raises RequestError `hub_not_found` or `hub_forbidden`, JobError `hub_unavailable`. No message holds
        the token, or anything that the Hub said.
        """
        limit = attempts or self.attempts
        for attempt in range(limit):
            try:
                return work(self.api())
            except LoramendError:
                raise
            except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # this machine's disk, not the Hub
                if attempt + 1 == limit or not is_passing(error):
                    raise self.explain(error, what, tries=attempt + 1, where=where) from None
                time.sleep(_pause(error, self.pause * 2**attempt))
        raise AssertionError("attempts is at least 1")

    def explain(
        self, error: Exception, what: str, *, tries: int = 1, where: str | None = None
    ) -> LoramendError:
        """The error in our own codes and words."""
        host = urlsplit(self.endpoint).netloc.rpartition("@")[2]
        seen = "the token given cannot see it" if self.token else "no token was given"
        code: ErrorCode = "hub_not_found"
        match error := _underlying(error):
            case GatedRepoError():
                code = "hub_forbidden"
                detail = (
                    f"{what} is gated, and {seen.replace('see', 'open')}: ask for access on its page on "
                    f"{host} and give a token of that account."
                )
            case RevisionNotFoundError():
                detail = f"{what}: there is no such revision on {host}."
            case RemoteEntryNotFoundError():
                detail = f"{what}: a file is missing on {host}."
            case RepositoryNotFoundError():
                detail = f"{what} is not on {host}, or it is private and {seen}."
            case HFValidationError():
                detail = f"{what!r} cannot be the ID of a repository on the Hub."
            case DisabledRepoError():
                code, detail = "hub_forbidden", f"{what} has been disabled on {host}."
            case HfHubHTTPError(response=response) if response.status_code == 401:
                code = "hub_forbidden"
                detail = f"{host} does not accept the token given: make a new one in the account's settings."
            case HfHubHTTPError(response=response) if response.status_code == 403:
                code, detail = "hub_forbidden", f"{host} refused access to {what}: the token lacks the right."
            case _:
                times = "once" if tries == 1 else f"{tries} times"
                detail = f"{what}: asked {times}, {host} {_failure(error, self.seconds)}; try again later."
                return JobError("hub_unavailable", detail, where=where)
        return RequestError(code, detail, where=where)


def is_passing(error: Exception) -> bool:
    """Whether the same request may well succeed a moment later."""
    match _underlying(error):
        case HfHubHTTPError(response=response):
            return response.status_code in (408, 425, 429) or response.status_code >= 500
        case httpx2.TransportError():
            return True
        case FileMetadataError() | FileNotFoundError():
            return False
        case OSError(errno=None):
            return True  # a download that broke off short of its length
    return False


def _underlying(error: Exception) -> Exception:
    """What huggingface_hub wrapped into an error of its own."""
    wrapped = isinstance(error, LocalEntryNotFoundError) or type(error) is RuntimeError
    cause = error.__cause__
    return _underlying(cause) if wrapped and isinstance(cause, Exception) else error


def _failure(error: Exception, seconds: float) -> str:
    match error:
        case HfHubHTTPError(response=response):
            return f"answered {response.status_code}"
        case httpx2.TimeoutException():
            return f"did not answer within {seconds:g} s"
        case httpx2.ConnectError():
            return "could not be reached"
        case httpx2.TransportError():
            return "broke off the connection"
        case OSError(errno=None):
            return "sent less than it had announced"
    return f"did not answer as a Hub does ({type(error).__name__})"


def _pause(error: Exception, planned: float) -> float:
    asked = ""
    if isinstance(error, HfHubHTTPError):
        asked = error.response.headers.get("Retry-After", "")
    return min(max(float(asked) if asked.isdigit() else 0.0, planned), _LONGEST_PAUSE)


class _BoundedClient(httpx2.Client):
    """Lets no request wait for ever, whatever huggingface_hub asks for: its listings have no time limit. Nor
    is it sent on to where it has no business."""

    def __init__(self, seconds: float, trusted: frozenset[str] | None) -> None:
        self.seconds = seconds
        self.trusted = trusted
        super().__init__(follow_redirects=True, timeout=seconds)

    def _init_transport(self, *args: Any, **kwargs: Any) -> httpx2.BaseTransport:
        """The one for direct connections; a proxy looks up names itself."""
        transport = super()._init_transport(*args, **kwargs)
        if self.trusted is not None:
            assert isinstance(transport, httpx2.HTTPTransport), "no other was asked for"
            # httpx has no parameter for it; httpcore has.
            transport._pool._network_backend = CheckedBackend(self.trusted)
        return transport

    def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        bound = self.seconds if request.method in ("GET", "HEAD") else self.seconds * _UPLOAD_FACTOR
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            phase: min(asked.get(phase) or bound, bound) for phase in ("connect", "read", "write", "pool")
        }
        return super().send(request, **kwargs)


def _bound_session(seconds: float, trusted: frozenset[str] | None) -> None:
    """Have huggingface_hub's client, one for the process, wait no longer and go no further than this."""
    session = get_session()
    if not isinstance(session, _BoundedClient) or (session.seconds, session.trusted) != (seconds, trusted):
        set_client_factory(lambda: _BoundedClient(seconds, trusted))
