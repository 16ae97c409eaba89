"""The write half of the protocol: new repositories, branches, tags, large files, commits, pull requests."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import yaml
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tests.hub.accounts import Token
from tests.hub.local import HubError, caller, commit_of, hub_of, new_upload_key, readable
from tests.hub.repos import Pull, Repo, StaleParentError, wants_lfs

router = APIRouter()


def _writable(request: Request, namespace: str, name: str) -> tuple[Repo, Token]:
    repo, _ = readable(request, namespace, name)
    token = caller(request)
    if not hub_of(request).accounts.may_write(token, repo):
        raise HubError(403, "", "You don't have the required permissions to write to this repository.")
    return repo, token


def _committable(request: Request, namespace: str, name: str, create_pr: bool) -> tuple[Repo, Token]:
    """The repository, where the caller may commit to it, or open a pull request on it."""
    if not create_pr:
        return _writable(request, namespace, name)
    repo, _ = readable(request, namespace, name)
    token = caller(request)
    if not hub_of(request).accounts.may_discuss(token, repo.repo_id):
        raise HubError(403, "", "You don't have the required permissions to open pull requests.")
    return repo, token


@router.post("/api/repos/create")
async def create(request: Request) -> JSONResponse:
    hub, token, body = hub_of(request), caller(request), await request.json()
    repo = hub.repo(f"{body.get('organization') or token.user}/{body['name']}")
    url = f"{request.base_url}{repo.repo_id}"
    if not hub.accounts.may_create(token, repo.repo_id):
        raise HubError(
            403, "", f"You don't have the rights to create a model under this namespace: {repo.repo_id}"
        )
    if repo.exists():
        return JSONResponse({"error": "You already created this model repo", "url": url}, 409)
    repo.create(token.user, private=body.get("visibility") == "private" or bool(body.get("private")))
    return JSONResponse({"url": url, "name": repo.repo_id, "id": "0" * 24})


@router.post("/api/validate-yaml")
async def validate_yaml(request: Request) -> JSONResponse:
    content = (await request.json())["content"]
    if not content.startswith("---\n"):
        return JSONResponse(
            {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        )
    try:
        metadata = yaml.safe_load(content.split("---\n", 2)[1])
    except yaml.YAMLError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(metadata, dict):
        return JSONResponse({"errors": [{"message": "metadata is not a mapping"}], "warnings": []}, 400)
    return JSONResponse({"errors": [], "warnings": []})


@router.post("/api/models/{namespace}/{name}/branch/{branch:path}")
async def create_branch(request: Request, namespace: str, name: str, branch: str) -> dict[str, Any]:
    repo, _ = _writable(request, namespace, name)
    start = (await request.json()).get("startingPoint") or "main"
    repo.set_ref(f"refs/heads/{branch}", commit_of(repo, start))
    return {}


@router.post("/api/models/{namespace}/{name}/tag/{revision:path}")
async def create_tag(request: Request, namespace: str, name: str, revision: str) -> dict[str, Any]:
    repo, _ = _writable(request, namespace, name)
    repo.set_ref(f"refs/tags/{(await request.json())['tag']}", commit_of(repo, revision))
    return {}


@router.post("/api/models/{namespace}/{name}/preupload/{revision:path}")
async def preupload(
    request: Request, namespace: str, name: str, revision: str, create_pr: bool = False
) -> dict[str, Any]:
    repo, _ = _committable(request, namespace, name, create_pr)
    there = {entry.path: entry for entry in repo.entries(commit_of(repo, revision))}
    answer = []
    for file in (await request.json())["files"]:
        mode = "lfs" if wants_lfs(file["path"], file["size"]) else "regular"
        item = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        if file["path"] in there:
            item["oid"] = there[file["path"]].lfs or there[file["path"]].oid
        answer.append(item)
    return {"files": answer}


@router.post("/{namespace}/{name}.git/info/lfs/objects/batch")
async def lfs_batch(request: Request, namespace: str, name: str) -> dict[str, Any]:
    repo, _ = _committable(request, namespace, name, create_pr=True)
    objects = []
    for item in (await request.json())["objects"]:
        answer: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
        if not repo.lfs_path(item["oid"]).exists():
            base = f"{request.base_url}storage/{namespace}/{name}/{item['oid']}"
            key = new_upload_key(hub_of(request), repo.repo_id, item["oid"])
            answer["actions"] = {
                "upload": {"href": f"{base}?key={key}", "header": {}},
                "verify": {"href": f"{base}/verify", "header": {}},
            }
        objects.append(answer)
    return {"transfer": "basic", "objects": objects}


@router.put("/storage/{namespace}/{name}/{sha256}")
async def store(request: Request, namespace: str, name: str, sha256: str, key: str) -> dict[str, Any]:
    repo = hub_of(request).repo(f"{namespace}/{name}")
    if hub_of(request).upload_keys.pop(key, None) != f"{repo.repo_id}/{sha256}":
        raise HubError(403, "", "The upload link is not valid")
    content = await request.body()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise HubError(400, "", "The content does not have that sha256")
    repo.store_lfs(content)
    return {}


@router.post("/storage/{namespace}/{name}/{sha256}/verify")
async def verify(request: Request, namespace: str, name: str, sha256: str) -> dict[str, Any]:
    repo, _ = _committable(request, namespace, name, create_pr=True)
    path = repo.lfs_path(sha256)
    if not path.exists() or path.stat().st_size != (await request.json())["size"]:
        raise HubError(404, "EntryNotFound", "No such object of that size")
    return {}


@router.post("/api/models/{namespace}/{name}/commit/{revision:path}")
async def commit(
    request: Request, namespace: str, name: str, revision: str, create_pr: bool = False
) -> dict[str, Any]:
    repo, token = _committable(request, namespace, name, create_pr)
    header: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    large: dict[str, tuple[str, int]] = {}
    deleted: list[str] = []
    for line in (await request.body()).splitlines():
        key, value = (item := json.loads(line))["key"], item["value"]
        if key == "header":
            header = value
        elif key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if not repo.lfs_path(value["oid"]).exists():
                raise HubError(400, "", f"{value['path']} points to an object that was not uploaded")
            large[value["path"]] = (value["oid"], value["size"])
        elif key in ("deletedFile", "deletedFolder"):
            deleted.append(value["path"])
    head = commit_of(repo, revision)
    parent = header.get("parentCommit") or head
    if not create_pr and not head.startswith(parent):
        raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
    ref = f"refs/heads/{revision}"
    meta = repo.meta
    if create_pr:
        head = commit_of(repo, parent)
        pull = Pull(
            len(meta.pulls) + 1, header["summary"], token.user, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
        )
        ref = f"refs/pr/{pull.num}"
        repo.set_ref(ref, head)
    try:
        sha = repo.commit(
            ref, head, files, large, deleted, header["summary"], header.get("description", ""), token.user
        )
    except StaleParentError as error:
        raise HubError(412, "", "A commit has happened since. Please refresh and try again.") from error
    answer = {
        "success": True,
        "commitOid": sha,
        "commitUrl": f"{request.base_url}{repo.repo_id}/commit/{sha}",
    }
    if create_pr:
        meta.pulls.append(pull)
        repo.write_meta(meta)
        answer["pullRequestUrl"] = f"{request.base_url}{repo.repo_id}/discussions/{pull.num}"
    return answer | {"hookOutput": ""}
