"""The read half of the protocol: repository info, trees, commits, refs, discussions and files."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from tests.hub.accounts import Token
from tests.hub.local import HubError, caller, commit_of, hub_of, raw_segments, readable
from tests.hub.repos import Entry, Kind, Repo

COMMITS_PER_PAGE = 50
DISCUSSIONS_PER_PAGE = 10

router = APIRouter()


@router.get("/api/whoami-v2")
async def whoami(request: Request) -> dict[str, Any]:
    token = caller(request)
    return hub_of(request).accounts.whoami(token)


@router.get("/api/{kind}/{namespace}/{name}")
async def info(
    request: Request, kind: Kind, namespace: str, name: str, blobs: bool = False
) -> dict[str, Any]:
    repo, _ = readable(request, namespace, name, kind)
    return _info(repo, commit_of(repo, "main"), blobs)


@router.get("/api/{kind}/{namespace}/{name}/revision/{revision:path}")
async def info_at(
    request: Request, kind: Kind, namespace: str, name: str, revision: str, blobs: bool = False
) -> dict[str, Any]:
    repo, _ = readable(request, namespace, name, kind)
    return _info(repo, commit_of(repo, revision), blobs)


def _info(repo: Repo, sha: str, blobs: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = []
    for entry in repo.entries(sha):
        sibling: dict[str, Any] = {"rfilename": entry.path}
        if blobs:
            sibling |= {"size": entry.size, "blobId": entry.oid}
            if entry.lfs:
                sibling["lfs"] = {"sha256": entry.lfs, "size": entry.size, "pointerSize": entry.pointer_size}
        siblings.append(sibling)
    meta = repo.meta
    return {
        "_id": "0" * 24,
        "id": repo.repo_id,
        "modelId": repo.repo_id,
        "author": repo.repo_id.split("/")[0],
        "sha": sha,
        "private": meta.private,
        "gated": meta.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    }


@router.get("/api/{kind}/{namespace}/{name}/auth-check")
async def auth_check(request: Request, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
    repo, token = readable(request, namespace, name, kind)
    if not hub_of(request).accounts.may_open(token, repo):
        raise HubError(403 if token else 401, "GatedRepo", f"Access to model {repo.repo_id} is restricted.")
    return {}


@router.get("/api/models/{namespace}/{name}/auth-check/write")
async def auth_check_write(request: Request, namespace: str, name: str) -> dict[str, Any]:
    repo, token = readable(request, namespace, name)
    if token is None or not hub_of(request).accounts.may_write(token, repo):
        raise HubError(403, "", "You don't have the required permissions to write to this repository.")
    return {}


@router.get("/api/{kind}/{namespace}/{name}/tree/{rest:path}")
async def tree(
    request: Request, kind: Kind, namespace: str, name: str, recursive: bool = False
) -> list[dict[str, Any]]:
    repo, _ = readable(request, namespace, name, kind)
    revision, *folder = raw_segments(request, "/tree/")
    prefix = "".join(f"{part}/" for part in folder)
    entries = [entry for entry in repo.entries(commit_of(repo, revision)) if entry.path.startswith(prefix)]
    if prefix and not entries:
        raise HubError(404, "EntryNotFound", f"{prefix} does not exist")
    depth = prefix.count("/")
    found = [_tree_item(entry) for entry in entries if recursive or entry.path.count("/") == depth]
    folders = {
        "/".join(entry.path.split("/")[: depth + 1]) for entry in entries if entry.path.count("/") > depth
    }
    return found + [
        {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in sorted(folders)
    ]


@router.post("/api/{kind}/{namespace}/{name}/paths-info/{revision:path}")
async def paths_info(
    request: Request,
    kind: Kind,
    namespace: str,
    name: str,
    revision: str,
    paths: Annotated[list[str], Form()],
) -> list[dict[str, Any]]:
    repo, _ = readable(request, namespace, name, kind)
    return [_tree_item(entry) for entry in repo.entries(commit_of(repo, revision)) if entry.path in paths]


def _tree_item(entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.lfs:
        item["lfs"] = {"oid": entry.lfs, "size": entry.size, "pointerSize": entry.pointer_size}
    return item


@router.get("/api/models/{namespace}/{name}/refs")
async def refs(request: Request, namespace: str, name: str) -> dict[str, Any]:
    repo, _ = readable(request, namespace, name)
    groups = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
    answer: dict[str, list[dict[str, str]]] = {group: [] for group in (*groups.values(), "converts")}
    for ref, sha in repo.refs().items():
        for prefix, group in groups.items():
            if ref.startswith(prefix):
                answer[group].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha})
    return answer


@router.get("/api/models/{namespace}/{name}/commits/{revision:path}")
async def commits(request: Request, namespace: str, name: str, revision: str, p: int = 0) -> JSONResponse:
    repo, _ = readable(request, namespace, name)
    history = repo.commits(commit_of(repo, revision))
    page = [
        {
            "id": commit.sha,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": commit.date,
        }
        for commit in history[p * COMMITS_PER_PAGE : (p + 1) * COMMITS_PER_PAGE]
    ]
    headers = {}
    if len(history) > (p + 1) * COMMITS_PER_PAGE:
        path = f"api/models/{namespace}/{name}/commits/{quote(revision, safe='')}"
        headers["Link"] = f'<{request.base_url}{path}?p={p + 1}>; rel="next"'
    return JSONResponse(page, headers=headers)


@router.get("/api/models/{namespace}/{name}/discussions")
async def discussions(request: Request, namespace: str, name: str, p: int = 0) -> dict[str, Any]:
    repo, _ = readable(request, namespace, name)
    pulls = sorted(repo.meta.pulls, key=lambda pull: -pull.num)
    page = pulls[p * DISCUSSIONS_PER_PAGE : (p + 1) * DISCUSSIONS_PER_PAGE]
    return {
        "count": len(pulls),
        "start": p * DISCUSSIONS_PER_PAGE,
        "discussions": [
            {
                "num": pull.num,
                "title": pull.title,
                "author": {"name": pull.author},
                "createdAt": pull.created_at,
                "status": pull.status,
                "repo": {"name": repo.repo_id, "type": "model"},
                "isPullRequest": True,
            }
            for pull in page
        ],
    }


@router.api_route("/datasets/{namespace}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
async def resolve_dataset(request: Request, namespace: str, name: str) -> Response:
    return _resolve(request, *readable(request, namespace, name, "datasets"))


@router.api_route("/{namespace}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
async def resolve(request: Request, namespace: str, name: str) -> Response:
    return _resolve(request, *readable(request, namespace, name))


def _resolve(request: Request, repo: Repo, token: Token | None) -> Response:
    if not hub_of(request).accounts.may_open(token, repo):
        raise HubError(403 if token else 401, "GatedRepo", f"Access to model {repo.repo_id} is restricted.")
    revision, *parts = raw_segments(request, "/resolve/")
    sha = commit_of(repo, revision)
    entry = next((entry for entry in repo.entries(sha) if entry.path == "/".join(parts)), None)
    if entry is None:
        raise HubError(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.lfs or entry.oid}"', "Accept-Ranges": "bytes"}
    media = "application/octet-stream"
    if entry.lfs:
        return FileResponse(repo.lfs_path(entry.lfs), headers=headers, media_type=media)
    return Response(repo.blob(entry.oid), headers=headers, media_type=media)
