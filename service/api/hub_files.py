"""A job's repaired adapter as the Hub would list its files: Git object IDs, LFS pointers, revisions."""

import hashlib
from functools import lru_cache
from typing import Literal, NamedTuple

from loramend.contracts.errors import RequestError
from service.jobs.records import BlobRef, JobRecord
from service.jobs.storage import Storage

NAMESPACE = "repaired"
# Beyond this, and for weights of any size, the Hub keeps a file in LFS and Git holds a pointer.
_MAX_GIT_BYTES = 1024**2
_LFS_SUFFIXES = (".safetensors", ".gz", ".zip", ".npz")


HubCode = Literal["RepoNotFound", "RevisionNotFound", "EntryNotFound"]
_MESSAGES: dict[HubCode, str] = {
    "RepoNotFound": "Repository not found",
    "RevisionNotFound": "Revision not found",
    "EntryNotFound": "Entry not found",
}


class HubError(RequestError):
    """A `not_found` that says to Hub clients, in X-Error-Code, what was not found."""

    def __init__(self, hub_code: HubCode, detail: str, *, commit: str | None = None) -> None:
        super().__init__("not_found", detail)
        # The client's own words may not go into a header: they can hold any character.
        self.headers = {"X-Error-Code": hub_code, "X-Error-Message": _MESSAGES[hub_code]}
        if commit is not None:
            self.headers["X-Repo-Commit"] = commit


class HubFile(NamedTuple):
    """One file: `oid` is the Git blob ID of it, or of its LFS pointer where `pointer_size` is set."""

    path: str
    ref: BlobRef
    oid: str
    pointer_size: int | None

    @property
    def etag(self) -> str:
        """sha256 for LFS files, else the Git blob ID: what clients name the file by in their cache."""
        return self.oid if self.pointer_size is None else self.ref.sha256


class HubRepo(NamedTuple):
    """The repository that a job's result is served as."""

    record: JobRecord
    commit: str

    @property
    def id(self) -> str:
        return f"{NAMESPACE}/{self.record.id}"


def repo_of(record: JobRecord | None, repo_id: str) -> HubRepo:
    """The repository of a job that has one. Raises HubError RepoNotFound."""
    if record is None:
        raise HubError("RepoNotFound", f"There is no repository {repo_id} here: it is {NAMESPACE}/<job id>.")
    if record.result is None or record.result.revision is None or not record.output:
        raise HubError("RepoNotFound", f"Job {record.id} is {record.status} and has no repaired adapter.")
    return HubRepo(record, record.result.revision)


def check_revision(repo: HubRepo, revision: str) -> None:
    """`main` and the commit are the revisions there are. Raises HubError RevisionNotFound."""
    if revision not in ("main", "HEAD", repo.commit):
        raise HubError(
            "RevisionNotFound", f"{repo.id} has the revisions main and {repo.commit}, not {revision}."
        )


def file_of(repo: HubRepo, path: str, storage: Storage) -> HubFile:
    """One file. Raises HubError EntryNotFound, with the commit, so that clients remember the absence."""
    ref = repo.record.output.get(path)
    if ref is None:
        raise HubError("EntryNotFound", f"{repo.id} has no file {path}.", commit=repo.commit)
    return describe(path, ref, storage)


def describe(path: str, ref: BlobRef, storage: Storage) -> HubFile:
    """The file with its Git object ID."""
    if path.endswith(_LFS_SUFFIXES) or ref.size > _MAX_GIT_BYTES:
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{ref.sha256}\nsize {ref.size}\n".encode()
        )
        return HubFile(path, ref, _blob_id(pointer), len(pointer))
    return HubFile(path, ref, _stored_blob_id(storage, ref), None)


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@lru_cache(maxsize=4096)
def _stored_blob_id(storage: Storage, ref: BlobRef) -> str:
    return _blob_id(b"".join(storage.open(ref)))
