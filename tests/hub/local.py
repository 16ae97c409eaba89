"""The hub's state (repositories, accounts, faults, what was asked of it) and how its routes get at it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from fastapi import Request

from tests.hub.accounts import Accounts, Token
from tests.hub.faults import Fault
from tests.hub.repos import Kind, Repo, wants_lfs


class HubError(Exception):
    """An answer of the Hub's kind: a status, an X-Error-Code and a message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Seen:
    """A request as the hub saw it; `user` is the token's, empty without one."""

    method: str
    path: str
    status: int
    user: str


class LocalHub:
    """A hub whose repositories lie under `root`, laid out so that olah can mirror them too."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.endpoint = ""  # while it is served
        self.accounts = Accounts()
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.upload_keys: dict[str, str] = {}

    def repo(self, repo_id: str, kind: Kind = "models") -> Repo:
        return Repo(self.root, repo_id, kind)

    def put(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        branch: str = "main",
        private: bool = False,
        gated: str | bool = False,
        message: str = "Add files",
        kind: Kind = "models",
    ) -> str:
        """Commit files without going through HTTP, making the repository first; returns the commit."""
        repo = self.repo(repo_id, kind)
        if not repo.exists():
            repo.create(repo_id.split("/")[0], private=private)
        meta = repo.meta
        meta.private, meta.gated = private, gated
        repo.write_meta(meta)
        large = {path: body for path, body in files.items() if wants_lfs(path, len(body))}
        parent = repo.resolve(branch) or repo.resolve("main")
        return repo.commit(
            f"refs/heads/{branch}",
            parent,
            {path: body for path, body in files.items() if path not in large},
            {path: (repo.store_lfs(body), len(body)) for path, body in large.items()},
            [],
            message,
            force=True,
        )

    def token_of(self, headers: Mapping[str, str]) -> Token | None:
        """Whose request it is. Raises HubError for a token that is not known here."""
        value = headers.get("authorization", "").removeprefix("Bearer ")
        if not value:
            return None
        if value not in self.accounts.tokens:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return self.accounts.tokens[value]


def hub_of(request: Request) -> LocalHub:
    hub: LocalHub = request.app.state.hub
    return hub


def raw_segments(request: Request, after: str) -> list[str]:
    """What follows `after` in the path, split before it is unquoted, so that %2F stays inside its segment."""
    raw = request.scope["raw_path"].decode().split("?")[0]
    return [unquote(part) for part in raw.split(after, 1)[1].split("/") if part]


def readable(request: Request, namespace: str, name: str, kind: Kind = "models") -> tuple[Repo, Token | None]:
    """The repository, where it is there and visible to the caller. Raises HubError as the Hub does."""
    hub = hub_of(request)
    token = hub.token_of(request.headers)
    repo = hub.repo(f"{namespace}/{name}", kind)
    if not repo.exists() or not hub.accounts.may_read(token, repo):
        raise HubError(404 if token else 401, "RepoNotFound", "Repository not found")
    return repo, token


def commit_of(repo: Repo, revision: str) -> str:
    """The commit a revision names. Raises HubError where there is none."""
    sha = repo.resolve(revision)
    if sha is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return sha


def caller(request: Request) -> Token:
    """The token of a request that needs one."""
    token = hub_of(request).token_of(request.headers)
    if token is None:
        raise HubError(401, "", "Invalid username or password.")
    return token


def new_upload_key(hub: LocalHub, repo_id: str, sha256: str) -> str:
    """A key that lets one file be uploaded without a token, as a signed storage URL does."""
    key = secrets.token_urlsafe(16)
    hub.upload_keys[key] = f"{repo_id}/{sha256}"
    return key
