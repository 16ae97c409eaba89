"""Who may do what on the hub: users, organisations, tokens with roles and scopes."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.hub.repos import Repo

Role = Literal["read", "write", "fineGrained"]
OrgRole = Literal["read", "contributor", "write", "admin"]


@dataclass(frozen=True)
class Scope:
    """What a fine-grained token may do to one user's, organisation's or repository's repositories."""

    type: Literal["user", "org", "model"]
    name: str
    permissions: tuple[str, ...]


@dataclass(frozen=True)
class Token:
    value: str
    user: str
    role: Role
    scopes: tuple[Scope, ...] = ()
    everywhere: tuple[str, ...] = ()


@dataclass
class Accounts:
    """`orgs` holds each user's role by organisation."""

    orgs: dict[str, dict[str, OrgRole]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)

    def add_user(self, name: str, **orgs: OrgRole) -> None:
        self.orgs[name] = dict(orgs)

    def add_token(
        self, user: str, role: Role, *, scopes: Sequence[Scope] = (), everywhere: Sequence[str] = ()
    ) -> str:
        """A new token's value; `scopes` and `everywhere` (permissions on all public repositories) are for
        fine-grained ones."""
        self.orgs.setdefault(user, {})
        token = Token(f"hf_{secrets.token_hex(17)}", user, role, tuple(scopes), tuple(everywhere))
        self.tokens[token.value] = token
        return token.value

    def whoami(self, token: Token) -> dict[str, Any]:
        """As GET /api/whoami-v2 answers."""
        access: dict[str, Any] = {
            "displayName": "test",
            "role": token.role,
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
        if token.role == "fineGrained":
            access["fineGrained"] = {
                "canReadGatedRepos": True,
                "global": list(token.everywhere),
                "scoped": [
                    {
                        "entity": {"_id": "0" * 24, "type": scope.type, "name": scope.name},
                        "permissions": list(scope.permissions),
                    }
                    for scope in token.scopes
                ],
            }
        return {
            "type": "user",
            "id": "0" * 24,
            "name": token.user,
            "fullname": token.user.title(),
            "orgs": [
                {"type": "org", "id": "0" * 24, "name": org, "fullname": org, "roleInOrg": role}
                for org, role in self.orgs[token.user].items()
            ],
            "auth": {"type": "access_token", "accessToken": access},
        }

    def may_read(self, token: Token | None, repo: Repo) -> bool:
        """Whether the repository is there at all for this caller."""
        if not repo.meta.private:
            return True
        namespace = repo.repo_id.split("/")[0]
        return (
            token is not None
            and (namespace == token.user or namespace in self.orgs[token.user])
            and _scoped(token, repo.repo_id, "repo.content.read", "repo.write")
        )

    def may_open(self, token: Token | None, repo: Repo) -> bool:
        """Whether this caller has passed the repository's gate."""
        meta = repo.meta
        if not meta.gated:
            return True
        return token is not None and (token.user in meta.allowed or self.may_write(token, repo))

    def may_create(self, token: Token, repo_id: str) -> bool:
        """Whether this caller may make a new repository of that name."""
        return (
            self._role(token, repo_id) in ("contributor", "write", "admin")
            and token.role != "read"
            and _scoped(token, repo_id, "repo.write")
        )

    def may_write(self, token: Token, repo: Repo) -> bool:
        """Whether this caller may commit; contributors only to what they made themselves."""
        role = self._role(token, repo.repo_id)
        allowed = role in ("write", "admin") or (role == "contributor" and repo.meta.creator == token.user)
        return allowed and token.role != "read" and _scoped(token, repo.repo_id, "repo.write")

    def _role(self, token: Token, repo_id: str) -> str | None:
        namespace = repo_id.split("/")[0]
        return "admin" if namespace == token.user else self.orgs[token.user].get(namespace)

    def may_discuss(self, token: Token, repo_id: str) -> bool:
        """Whether this caller may open pull requests on a repository that it can read."""
        if token.role == "fineGrained" and "discussion.write" in token.everywhere:
            return True
        return token.role != "read" and _scoped(token, repo_id, "discussion.write", "repo.write")


def _scoped(token: Token, repo_id: str, *permissions: str) -> bool:
    """Whether a fine-grained token carries one of the permissions for a repository; others carry all."""
    if token.role != "fineGrained":
        return True
    names = {repo_id, repo_id.split("/")[0]}
    return any(scope.name in names and set(permissions) & set(scope.permissions) for scope in token.scopes)
