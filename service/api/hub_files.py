"""A job's repaired adapter as the Hub would list its files: Git object IDs, LFS pointers, revisions."""

import hashlib
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from service.api.problems import AnswerError
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


class HubError(AnswerError):
    """A `not_found` that says to Hub clients, in X-Error-Code, what was not found."""

    def __init__(self, hub_code: HubCode, detail: str, *, commit: str | None = None) -> None:
        # The client's own words may not go into a header: they can hold any character.
        headers = {"X-Error-Code": hub_code, "X-Error-Message": _MESSAGES[hub_code]}
        if commit is not None:
            headers["X-Repo-Commit"] = commit
        super().__init__("not_found", detail, headers)


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
    if revision not in ("main", repo.commit):
        raise HubError(
            "RevisionNotFound", f"{repo.id} has the revisions main and {repo.commit}, not {revision}."
        )


class GitIds:
    """Git blob IDs of stored files; those read last are remembered, since a blob never changes."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, ref: BlobRef) -> str:
        return _blob_id(b"".join(self._storage.open(ref)))


def file_of(repo: HubRepo, path: str, git_ids: GitIds) -> HubFile:
    """One file. Raises HubError EntryNotFound, with the commit, so that clients remember the absence."""
    ref = repo.record.output.get(path)
    if ref is None:
        raise HubError("EntryNotFound", f"{repo.id} has no file {path}.", commit=repo.commit)
    return describe(path, ref, git_ids)


def describe(path: str, ref: BlobRef, git_ids: GitIds) -> HubFile:
    """The file with its Git object ID."""
    if path.endswith(_LFS_SUFFIXES) or ref.size > _MAX_GIT_BYTES:
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{ref.sha256}\nsize {ref.size}\n".encode()
        )
        return HubFile(path, ref, _blob_id(pointer), len(pointer))
    return HubFile(path, ref, git_ids.of(ref), None)


def tree_entries(repo: HubRepo, folder: str, recursive: bool, git_ids: GitIds) -> list[dict[str, Any]]:
    """What the Hub lists under a folder ("" is the root). Raises HubError EntryNotFound."""
    prefix = f"{folder}/" if folder else ""
    inside = {path: ref for path, ref in sorted(repo.record.output.items()) if path.startswith(prefix)}
    if folder and not inside:
        raise HubError("EntryNotFound", f"{repo.id} has no folder {folder}.", commit=repo.commit)
    folders: set[str] = set()
    files = []
    for path, ref in inside.items():
        *parents, _ = path.removeprefix(prefix).split("/")
        if recursive or not parents:
            files.append(_tree_entry(describe(path, ref, git_ids)))
        shown = parents if recursive else parents[:1]
        folders |= {prefix + "/".join(shown[:depth]) for depth in range(1, len(shown) + 1)}
    # No client reads a folder's tree ID, but the Hub gives one.
    return [
        {"type": "directory", "oid": repo.commit, "size": 0, "path": path} for path in sorted(folders)
    ] + files


def sibling(file: HubFile) -> dict[str, Any]:
    """A file as the Hub's model info describes it, with sizes."""
    entry: dict[str, Any] = {"rfilename": file.path, "size": file.ref.size, "blobId": file.oid}
    if file.pointer_size is not None:
        entry["lfs"] = {"sha256": file.ref.sha256, "size": file.ref.size, "pointerSize": file.pointer_size}
    return entry


def _tree_entry(file: HubFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.ref.size, "path": file.path}
    if file.pointer_size is not None:
        entry["lfs"] = {"oid": file.ref.sha256, "size": file.ref.size, "pointerSize": file.pointer_size}
    return entry


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
