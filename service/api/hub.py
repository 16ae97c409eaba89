"""The Hub's read protocol, so that `HF_ENDPOINT=<this service>` is all that Hub clients need.

A finished repair is the model repository `repaired/<job id>`, with the one branch main and one commit.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from loramend.contracts.errors import RequestError
from service.api.caller import Asker, Caller
from service.api.content import blob_response
from service.api.hub_files import (
    NAMESPACE,
    HubError,
    HubRepo,
    check_revision,
    describe,
    file_of,
    repo_of,
    sibling,
    tree_entries,
)
from service.api.problems import documented
from service.api.schema import header
from service.api.state import Services, Use

router = APIRouter(tags=["hub"])

Namespace = Annotated[str, Path(description=f"`{NAMESPACE}`.")]
Name = Annotated[str, Path(description="The job's ID.")]
Revision = Annotated[str, Path(description="`main` or the 40-digit commit.")]

_COMMIT = {"X-Repo-Commit": header("40 hex digits.")}
_JSON_OBJECT = {"application/json": {"schema": {"type": "object", "additionalProperties": True}}}
_JSON_LIST = {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}}
_FILE_HEADERS = {
    **_COMMIT,
    "ETag": header("sha256 for LFS files such as weights, else the Git blob ID."),
    "X-Linked-Etag": header("The sha256, for LFS files."),
    "X-Linked-Size": header("Bytes, for LFS files.", "integer"),
    "Accept-Ranges": header("bytes"),
}
_BINARY = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_INFO: dict[int | str, dict[str, Any]] = {
    200: {"description": "As the Hub describes a model", "content": _JSON_OBJECT},
    **documented("not_found", "request_invalid", "storage_unavailable"),
}
_FILES: dict[int | str, dict[str, Any]] = {
    200: {"description": "As the Hub lists files", "content": _JSON_LIST},
    **documented("not_found", "request_invalid", "storage_unavailable"),
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "headers": _FILE_HEADERS, "content": _BINARY},
    206: {"description": "The asked range", "headers": _FILE_HEADERS, "content": _BINARY},
    304: {"description": "Unchanged since the ETag in If-None-Match"},
    **documented("not_found", "range_not_satisfiable", "storage_unavailable"),
}

_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


def _repo(services: Services, caller: Caller, namespace: str, name: str) -> HubRepo:
    record = services.store.get(name) if namespace == NAMESPACE else None
    if record is not None and not caller.sees(record):
        record = None
    return repo_of(record, f"{namespace}/{name}")


@router.get("/api/models/{namespace}/{name}", summary="A repaired adapter as a Hub model", responses=_INFO)
def model_info(
    services: Use,
    caller: Asker,
    namespace: Namespace,
    name: Name,
    blobs: Annotated[bool, Query(description="With sizes.")] = False,
) -> Response:
    """What `HfApi().model_info` reads."""
    return _info(services, _repo(services, caller, namespace, name), blobs)


@router.get(
    "/api/models/{namespace}/{name}/revision/{revision:path}",
    summary="The same, at a revision",
    responses=_INFO,
)
def model_info_at(
    services: Use,
    caller: Asker,
    namespace: Namespace,
    name: Name,
    revision: Revision,
    blobs: Annotated[bool, Query(description="With sizes.")] = False,
) -> Response:
    """What `HfApi().model_info(revision=...)` reads."""
    repo = _repo(services, caller, namespace, name)
    check_revision(repo, revision)
    return _info(services, repo, blobs)


@router.get("/api/models/{namespace}/{name}/tree/{revision}", summary="Its files", responses=_FILES)
def tree(
    services: Use,
    caller: Asker,
    namespace: Namespace,
    name: Name,
    revision: Revision,
    recursive: Annotated[bool, Query()] = False,
) -> Response:
    """What `HfApi().list_repo_tree` reads."""
    return subtree(services, caller, namespace, name, revision, "", recursive)


@router.get(
    "/api/models/{namespace}/{name}/tree/{revision}/{path:path}", summary="A folder's files", responses=_FILES
)
def subtree(
    services: Use,
    caller: Asker,
    namespace: Namespace,
    name: Name,
    revision: Revision,
    path: str,
    recursive: Annotated[bool, Query()] = False,
) -> Response:
    """The files under one folder, and its folders."""
    repo = _repo(services, caller, namespace, name)
    check_revision(repo, revision)
    entries = tree_entries(repo, path.strip("/"), recursive, services.git_ids)
    return JSONResponse(entries, headers={"X-Repo-Commit": repo.commit})


@router.head(
    "/{namespace}/{name}/resolve/{revision}/{path:path}",
    operation_id="head_file",
    summary="A file's size and digest",
    responses=_FILE,
)
@router.get("/{namespace}/{name}/resolve/{revision}/{path:path}", summary="A file", responses=_FILE)
def resolve(
    services: Use,
    caller: Asker,
    request: Request,
    namespace: Namespace,
    name: Name,
    revision: Revision,
    path: str,
) -> Response:
    """What `hf_hub_download` reads."""
    repo = _repo(services, caller, namespace, name)
    check_revision(repo, revision)
    file = file_of(repo, path, services.git_ids)
    headers = {"X-Repo-Commit": repo.commit, "Content-Disposition": "attachment"}
    if file.pointer_size is not None:
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.ref.size)}
    media = next(
        (kind for suffix, kind in _TYPES.items() if path.endswith(suffix)), "application/octet-stream"
    )
    return blob_response(
        request, services.storage, file.ref, etag=f'"{file.etag}"', media_type=media, headers=headers
    )


@router.get("/api/models/{rest:path}", include_in_schema=False)
def no_such_model(services: Use, caller: Asker, rest: str) -> Response:
    """Any other model is not here, in the words that Hub clients understand; of those that are here, no more
    than the above is served."""
    namespace, name, *more = f"{rest}/".split("/", 2)
    if any(more):
        repo = _repo(services, caller, namespace, name)
        raise RequestError("not_found", f"Of {repo.id} only its info, its tree and its files are served.")
    raise HubError("RepoNotFound", f"There is no repository {rest} here: it is {NAMESPACE}/<job id>.")


@router.head("/{name}/resolve/{revision}/{path:path}", include_in_schema=False)
@router.get("/{name}/resolve/{revision}/{path:path}", include_in_schema=False)
def no_such_file(name: str, revision: str, path: str) -> Response:
    """The same for repositories without a namespace."""
    raise HubError("RepoNotFound", f"There is no repository {name} here: it is {NAMESPACE}/<job id>.")


def _info(services: Services, repo: HubRepo, blobs: bool) -> Response:
    record = repo.record
    modified = record.finished_at or record.created_at
    return JSONResponse(
        {
            "_id": record.id,
            "id": repo.id,
            "modelId": repo.id,
            "author": NAMESPACE,
            "sha": repo.commit,
            "createdAt": _time(record.created_at),
            "lastModified": _time(modified),
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "library_name": "peft",
            "tags": ["peft", "safetensors", "lora", "loramend"],
            "siblings": [
                sibling(describe(path, ref, services.git_ids)) if blobs else {"rfilename": path}
                for path, ref in sorted(record.output.items())
            ],
        },
        headers={"X-Repo-Commit": repo.commit},
    )


def _time(at: Any) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
