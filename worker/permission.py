"""Whether a token may publish, asked before a repair starts rather than found out after it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from loramend.cli.hub.client import Hub
from loramend.contracts.errors import RequestError
from loramend.contracts.request import Publish
from worker.hub import hub_for
from worker.settings import WorkerSettings

_WHERE = "/publish/repo_id"


def check_can_publish(publish: Publish, token: str | None, settings: WorkerSettings) -> None:
    """Find out, without writing anything, whether this token may push there.

    What the Hub does not tell (a scope it describes in a way unknown here, a repository hidden from the
    token) is left to the push.

    Raises RequestError `publish_forbidden`, or `request_invalid` where the repository exists and is public
    but `private` is asked for; JobError `hub_unavailable`.
    """
    with as_publish_forbidden():
        hub = hub_for(settings, token)
        if hub.token is None:
            raise _forbidden("Publishing needs a Hub token: send hub_token, or set HF_TOKEN for the worker.")
        me = hub.call("the token's account", lambda api: api.whoami())
        access = _mapping(_mapping(me.get("auth")).get("accessToken"))
        if access.get("role") == "read":
            raise _forbidden("The Hub token has the role 'read': make one with the role 'write'.")
        there = find_repo(hub, publish.repo_id)
        if there is not None and publish.create_pr:
            _check_scope(access, publish.repo_id, "discussion.write", "repo.write")
            return
        if there is None:
            _check_namespace(me, publish.repo_id)
        else:
            refuse_public(publish, there)
        _check_scope(access, publish.repo_id, "repo.write")
        if there is not None and not hub.call(publish.repo_id, lambda api: _may_write(api, publish.repo_id)):
            raise _forbidden(f"The Hub token may not write to {publish.repo_id}.")


def find_repo(hub: Hub, repo_id: str) -> ModelInfo | None:
    """The repository, None where there is none that the token can see. Raises what `Hub.call` raises."""

    def look(api: HfApi) -> ModelInfo | None:
        try:
            return api.model_info(repo_id, timeout=hub.seconds)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None

    return hub.call(repo_id, look)


def refuse_public(publish: Publish, there: ModelInfo) -> None:
    """Raises RequestError `request_invalid` where `private` is asked for and the repository is public."""
    if publish.private and not publish.create_pr and not there.private:
        raise RequestError(
            "request_invalid",
            f"{publish.repo_id} exists and is public: set private to false to publish there.",
            where="/publish/private",
        )


@contextmanager
def as_publish_forbidden() -> Iterator[None]:
    """Tells a Hub that refuses or does not know the repository as `publish_forbidden`."""
    try:
        yield
    except RequestError as error:
        if error.code in ("hub_forbidden", "hub_not_found"):
            raise _forbidden(error.detail) from None
        raise


def _check_namespace(me: Mapping[str, Any], repo_id: str) -> None:
    """New repositories go under the account's own name or an organisation where it may make some."""
    namespace = repo_id.split("/")[0]
    if namespace.casefold() == str(me.get("name", "")).casefold():
        return
    for org in _mappings(me.get("orgs")):
        if str(org.get("name", "")).casefold() == namespace.casefold():
            if org.get("roleInOrg") == "read":
                raise _forbidden(f"The token's account may only read in {namespace}.")
            return
    raise _forbidden(f"{namespace} is not the token's account, nor one of that account's organisations.")


def _check_scope(access: Mapping[str, Any], repo_id: str, *permissions: str) -> None:
    """A fine-grained token must name one of the permissions for the repository or its owner."""
    if access.get("role") != "fineGrained":
        return
    grants = _mapping(access.get("fineGrained"))
    if "discussion.write" in permissions and "discussion.write" in (grants.get("global") or ()):
        return
    names = {repo_id.casefold(), repo_id.split("/")[0].casefold()}
    for scope in _mappings(grants.get("scoped")):
        name = _mapping(scope.get("entity")).get("name")
        granted = set(permissions) & set(scope.get("permissions") or ())
        if granted and (name is None or str(name).casefold() in names):
            return
    raise _forbidden(f"The fine-grained Hub token lacks {' or '.join(permissions)} for {repo_id}.")


def _may_write(api: HfApi, repo_id: str) -> bool:
    try:
        api.auth_check(repo_id, write=True)
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            return False
        if error.response.status_code not in (404, 405):  # a hub without this question
            raise
    return True


def _forbidden(detail: str) -> RequestError:
    return RequestError("publish_forbidden", detail, where=_WHERE)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
