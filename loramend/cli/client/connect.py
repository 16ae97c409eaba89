"""The way to a loramend server, and its refusals as errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from pydantic import ValidationError

from loramend.cli.client.answers import ProblemAnswer
from loramend.cli.errors import CommandError
from loramend.contracts.errors import ErrorCode, RequestError

_SECONDS = 60.0  # without a byte


@contextmanager
def connected(server: str, key: str | None) -> Iterator[httpx.Client]:
    """A client of the server at that URL.

    Raises CommandError `server_unreachable` for whatever goes wrong on the way to it.
    """
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        # An HTTP header cannot hold it, and the error about that would quote it.
        raise RequestError("unauthorized", "the API key holds characters that no key has: see --key")
    # identity: what arrives is what the digest was taken of
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        with httpx.Client(
            base_url=server, headers=headers, timeout=_SECONDS, follow_redirects=True
        ) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(
            "server_unreachable",
            f"no answer from {server}: {reason}; give another --server, or start one with loramend serve",
        ) from None


def raise_for(response: httpx.Response) -> None:
    """The server's problem as the error it stands for, its place by the flag that it came from."""
    if not response.is_error:
        return
    try:
        problem = ProblemAnswer.model_validate_json(response.content)
    except ValidationError:
        problem = ProblemAnswer()
    code: ErrorCode = problem.known_code or "internal_error"
    if code == "unauthorized":
        server = response.url.netloc.decode("ascii")
        if "Authorization" not in response.request.headers:
            raise RequestError(code, f"{server} wants an API key: give --key, or set LORAMEND_KEY")
        raise RequestError(code, f"{server} does not take this API key: {detail_of(problem)}")
    raise RequestError(code, detail_of(problem) or f"{response.url} answered {response.status_code}")


def detail_of(problem: ProblemAnswer) -> str:
    """All that a problem says, each item with its place."""
    items = [item for item in problem.errors if item.pointer]
    if not items:
        return problem.detail or ""
    from loramend.cli.flags import place

    told = [f"{item.detail or problem.detail or ''} [{place(item.pointer)}]" for item in items]
    return " ".join(dict.fromkeys(told))
