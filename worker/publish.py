"""Pushes a repaired adapter to the Hub in one commit, which a retry finds instead of making a second."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from loramend.cli.hub.client import Hub
from loramend.cli.hub.environment import is_huggingface
from loramend.contracts.errors import JobError
from loramend.contracts.job import OnProgress, Progress, Published
from loramend.contracts.request import Publish
from worker.hub import hub_for
from worker.permission import as_publish_forbidden, find_repo, refuse_public
from worker.settings import WorkerSettings

_TRAILER = "Loramend-Job"


def publish(
    target: Publish,
    folder: Path,
    *,
    job_id: str,
    token: str | None,
    settings: WorkerSettings,
    on_progress: OnProgress,
) -> Published:
    """Push every file of `folder`, and nothing else: a signature covers what it was made of.

    The commit names the job in a trailer. Its parent is fixed before the history is searched for that
    trailer, so that of two attempts at once only one succeeds, and one whose answer was lost is found. For
    pull requests the Hub has no such guard: two attempts at the very same time would open two.

    Raises RequestError `publish_forbidden`, or `request_invalid` where the repository is public after all;
    JobError `hub_unavailable`.
    """
    hub = hub_for(settings, token)
    if not is_huggingface(hub.endpoint) and not constants.HF_HUB_DISABLE_XET:
        raise RuntimeError("set loramend.cli.hub.environment's variables before huggingface_hub is imported")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    total = len(paths)
    on_progress(Progress(phase="publish", done=0, total=total, unit="files", detail=target.repo_id))
    with as_publish_forbidden():
        published = _publish_once(hub, target, folder, paths, job_id)
    on_progress(Progress(phase="publish", done=total, total=total, unit="files", detail=target.repo_id))
    return published


def _publish_once(hub: Hub, target: Publish, folder: Path, paths: list[Path], job_id: str) -> Published:
    failure: JobError | None = None
    for attempt in range(hub.attempts):
        time.sleep(hub.pause * 2 ** (attempt - 1) if attempt else 0)
        head = _head(hub, target)
        if found := _find(hub, target, job_id):
            return found
        try:
            info = hub.call(target.repo_id, partial(_commit, target, folder, paths, job_id, head), attempts=1)
        except JobError as error:  # perhaps only the answer was lost, so look again before the next try
            failure = error
            continue
        if info is not None:
            return _published(hub, target, info.oid, info.pr_num)
        failure = JobError(
            "hub_unavailable",
            f"{target.repo_id} kept changing while the adapter was pushed; tried {attempt + 1} times.",
        )
    if found := _find(hub, target, job_id):
        return found
    assert failure is not None
    raise failure


def _find(hub: Hub, target: Publish, job_id: str) -> Published | None:
    """The commit or pull request that an earlier attempt for this job made."""
    trailer = f"{_TRAILER}: {job_id}"

    def among(api: HfApi, revision: str | None) -> str | None:
        commits = api.list_repo_commits(target.repo_id, revision=revision)
        return next((each.commit_id for each in commits if trailer in f"{each.title}\n{each.message}"), None)

    def pulls(api: HfApi) -> Iterator[int]:
        for discussion in api.get_repo_discussions(target.repo_id, discussion_type="pull_request"):
            if job_id in discussion.title:
                yield discussion.num

    def look(api: HfApi) -> Published | None:
        try:
            if commit := among(api, None):
                return _published(hub, target, commit, None)
            for number in pulls(api) if target.create_pr else ():
                if commit := among(api, f"refs/pr/{number}"):
                    return _published(hub, target, commit, number)
        except GatedRepoError:
            raise
        except (RepositoryNotFoundError, RevisionNotFoundError):
            pass  # nothing there yet
        return None

    return hub.call(target.repo_id, look)


def _head(hub: Hub, target: Publish) -> str | None:
    """The commit to build on, in a repository made for it where there was none."""
    there = find_repo(hub, target.repo_id)
    if there is None:
        make = partial(HfApi.create_repo, repo_id=target.repo_id, private=target.private, exist_ok=True)
        hub.call(target.repo_id, make)
        there = find_repo(hub, target.repo_id)
    if there is None:
        return None
    refuse_public(target, there)
    return there.sha


def _commit(
    target: Publish, folder: Path, paths: list[Path], job_id: str, head: str | None, api: HfApi
) -> CommitInfo | None:
    """The one commit, or None where the branch has moved on from `head`."""
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    try:
        return api.create_commit(
            target.repo_id,
            operations,
            commit_message=f"Add the adapter repaired by loramend, job {job_id}",
            commit_description=f"{_TRAILER}: {job_id}",
            create_pr=target.create_pr,
            parent_commit=head,
        )
    except HfHubHTTPError as error:
        if error.response.status_code == 412:
            return None
        raise


def _published(hub: Hub, target: Publish, commit: str, pull: int | None) -> Published:
    page = f"discussions/{pull}" if pull is not None else f"commit/{commit}"
    return Published(repo_id=target.repo_id, commit=commit, url=f"{hub.endpoint}/{target.repo_id}/{page}")
