"""The Hub's read protocol: what it says, and what the Hub's own clients make of it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from service.api.state import Services
from service.app import create_app
from service.jobs.keys import KeyStore
from service.settings import ServiceSettings
from tests.service.api.adapters import folder
from tests.service.api.answers import problem, run_client
from tests.service.api.conftest import Running, run_server
from tests.service.api.finished import REVISION, ended, queued, repaired

FILES = folder() | {
    "README.md": b"# Repaired\n",
    "original/adapter_config.json": b"{}",
    "original/deep/x.txt": b"x",
}
WEIGHTS = FILES["adapter_model.safetensors"]
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def git_id(content: bytes) -> str:
    """The object ID that Git itself gives."""
    command = ["git", "hash-object", "--stdin"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode().strip()


def pointer(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()


@pytest.fixture
def repo(services: Services) -> str:
    return f"repaired/{repaired(services, FILES).id}"


def test_model_info(client: TestClient, repo: str) -> None:
    for path in (repo, f"{repo}/revision/main", f"{repo}/revision/{REVISION}"):
        info = client.get(f"/api/models/{path}").json()
        assert (info["id"], info["sha"]) == (repo, REVISION)
        assert [sibling["rfilename"] for sibling in info["siblings"]] == sorted(FILES)
        assert "size" not in info["siblings"][0]
    detailed = client.get(f"/api/models/{repo}?blobs=true").json()["siblings"]
    sizes = {sibling["rfilename"]: sibling["size"] for sibling in detailed}
    assert sizes == {name: len(content) for name, content in FILES.items()}


def test_git_and_lfs_object_ids(client: TestClient, repo: str) -> None:
    entries = {e["path"]: e for e in client.get(f"/api/models/{repo}/tree/main?recursive=true").json()}
    assert entries["README.md"]["oid"] == git_id(FILES["README.md"])
    assert "lfs" not in entries["README.md"]
    weights = entries["adapter_model.safetensors"]
    assert weights["lfs"] == {"oid": SHA256, "size": len(WEIGHTS), "pointerSize": len(pointer(WEIGHTS))}
    assert weights["oid"] == git_id(pointer(WEIGHTS))


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        ("", {"README.md", "adapter_config.json", "adapter_model.safetensors", "original"}),
        ("?recursive=true", set(FILES) | {"original", "original/deep"}),
        ("/original", {"original/adapter_config.json", "original/deep"}),
        (
            "/original?recursive=true",
            {"original/adapter_config.json", "original/deep", "original/deep/x.txt"},
        ),
        ("/original/deep/", {"original/deep/x.txt"}),
    ],
)
def test_the_tree(client: TestClient, repo: str, path: str, listed: set[str]) -> None:
    for revision in ("main", REVISION):
        answer = client.get(f"/api/models/{repo}/tree/{revision}{path}")
        kinds = {entry["path"]: entry["type"] for entry in answer.json()}
        assert set(kinds) == listed
        assert all((kind == "file") is (name in FILES) for name, kind in kinds.items())
        assert answer.headers["x-repo-commit"] == REVISION


def test_files(client: TestClient, repo: str) -> None:
    for revision in ("main", REVISION):
        for name, content in FILES.items():
            path = f"/{repo}/resolve/{revision}/{name}"
            whole = client.get(path)
            assert whole.content == content
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            for answer in (whole, head):
                assert answer.headers["x-repo-commit"] == REVISION
                assert answer.headers["content-length"] == str(len(content))
                assert answer.headers["accept-ranges"] == "bytes"
                assert answer.headers["x-content-type-options"] == "nosniff"
                etag = SHA256 if content is WEIGHTS else git_id(content)
                assert answer.headers["etag"] == f'"{etag}"'
            assert ("x-linked-etag" in head.headers) is (content is WEIGHTS)
    weights = client.head(f"/{repo}/resolve/main/adapter_model.safetensors")
    assert weights.headers["x-linked-etag"] == f'"{SHA256}"'
    assert weights.headers["x-linked-size"] == str(len(WEIGHTS))
    part = client.get(f"/{repo}/resolve/main/adapter_model.safetensors", headers={"Range": "bytes=10-"})
    assert (part.status_code, part.content) == (206, WEIGHTS[10:])


def test_what_is_not_there_is_told_in_the_hubs_words(
    client: TestClient, services: Services, repo: str
) -> None:
    running, failed = queued(services).id, ended(services, "failed").id
    for path, code in (
        ("/api/models/repaired/nosuch", "RepoNotFound"),
        ("/api/models/org/base", "RepoNotFound"),
        ("/api/models/gpt2", "RepoNotFound"),
        ("/api/models/gpt2/revision/main", "RepoNotFound"),
        ("/api/models/org/base/tree/main", "RepoNotFound"),
        (f"/api/models/{repo.replace('repaired', 'other')}", "RepoNotFound"),
        (f"/api/models/repaired/{running}", "RepoNotFound"),
        (f"/api/models/repaired/{failed}", "RepoNotFound"),
        ("/org/base/resolve/main/config.json", "RepoNotFound"),
        ("/gpt2/resolve/main/config.json", "RepoNotFound"),
        (f"/api/models/{repo}/revision/v1", "RevisionNotFound"),
        (f"/api/models/{repo}/revision/refs%2Fpr%2F1", "RevisionNotFound"),
        (f"/api/models/{repo}/tree/{'0' * 40}", "RevisionNotFound"),
        (f"/{repo}/resolve/v1/README.md", "RevisionNotFound"),
        (f"/{repo}/resolve/main/config.json", "EntryNotFound"),
        (f"/{repo}/resolve/main/%2e%2e%2fREADME.md", "EntryNotFound"),
        (f"/{repo}/resolve/main/original", "EntryNotFound"),
        (f"/api/models/{repo}/tree/main/nosuch", "EntryNotFound"),
    ):
        answer = client.get(path)
        problem(answer, 404, "not_found")
        assert answer.headers["x-error-code"] == code, path
        assert (answer.headers.get("x-repo-commit") == REVISION) is (code == "EntryNotFound")
        if "/resolve/" in path:
            assert client.head(path).headers["x-error-code"] == code


def test_what_else_the_hub_serves_of_a_repository_is_not_said_to_be_a_missing_one(
    client: TestClient, repo: str
) -> None:
    for path in ("refs", "commits/main", "nosuch/"):
        answer = client.get(f"/api/models/{repo}/{path}")
        problem(answer, 404, "not_found")
        assert "x-error-code" not in answer.headers
    assert client.get("/api/models/repaired/nosuch/refs").headers["x-error-code"] == "RepoNotFound"


@pytest.fixture
def served(running: Running) -> tuple[str, str]:
    return running.url, f"repaired/{repaired(running.services, FILES).id}"


@pytest.mark.e2e
def test_huggingface_hub_downloads_once(
    served: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, repo = served
    code = f"""
        import json
        from pathlib import Path
        from huggingface_hub import hf_hub_download, snapshot_download
        folder = Path(snapshot_download("{repo}"))
        one = hf_hub_download("{repo}", "adapter_config.json")
        paths = [p for p in folder.rglob("*") if p.is_file()]
        found = {{p.relative_to(folder).as_posix(): p.read_bytes().hex() for p in paths}}
        print(json.dumps([folder.name, found, str(Path(one).parent == folder)]))
    """
    with caplog.at_level("INFO", "service.access"):
        name, found, same = run_client(url, code, tmp_path / "hf")
        first = requests_of(caplog)
        caplog.clear()
        run_client(url, code, tmp_path / "hf")
        second = requests_of(caplog)
    assert name == REVISION
    assert found == {path: content.hex() for path, content in FILES.items()}
    assert same == "True"
    assert {path for method, path in first if method == "GET" and "/resolve/" in path}
    assert not [path for method, path in second if method == "GET" and "/resolve/" in path]


def requests_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(vars(r)["method"], vars(r)["path"]) for r in caplog.records if r.name == "service.access"]


@pytest.mark.e2e
def test_hf_api_reads_what_is_there(served: tuple[str, str], tmp_path: Path) -> None:
    url, repo = served
    code = f"""
        import json
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError,
        )
        api = HfApi()
        info = api.model_info("{repo}", files_metadata=True)
        at = api.model_info("{repo}", revision="{REVISION}")
        tree = list(api.list_repo_tree("{repo}", recursive=True))
        raised = []
        for call in (
            lambda: api.model_info("repaired/nosuch"),
            lambda: api.model_info("{repo}", revision="v1"),
            lambda: hf_hub_download("{repo}", "nosuch.json"),
            lambda: hf_hub_download("org/base", "config.json"),
            lambda: hf_hub_download("{repo}", "README.md", revision="v1"),
        ):
            try:
                call()
            except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
                raised.append(type(error).__name__)
        lfs = next(s.lfs for s in info.siblings if s.rfilename == "adapter_model.safetensors")
        print(json.dumps([
            info.sha, at.sha, info.created_at.year > 2000, lfs.sha256, sorted(f.path for f in tree),
            api.file_exists("{repo}", "README.md"), api.file_exists("{repo}", "nosuch"),
            api.repo_exists("{repo}"), raised,
        ]))
    """
    assert run_client(url, code, tmp_path / "hf") == [
        REVISION,
        REVISION,
        True,
        SHA256,
        sorted([*FILES, "original", "original/deep"]),
        True,
        False,
        True,
        [
            "RepositoryNotFoundError",
            "RevisionNotFoundError",
            "RemoteEntryNotFoundError",
            "RepositoryNotFoundError",
            "RevisionNotFoundError",
        ],
    ]


@pytest.mark.e2e
def test_an_interrupted_download_goes_on_where_it_stopped(served: tuple[str, str], tmp_path: Path) -> None:
    url, repo = served
    code = f"""
        import io, json
        from huggingface_hub.file_download import http_get
        buffer = io.BytesIO()
        url = "{url}/{repo}/resolve/main/adapter_model.safetensors"
        buffer.write(bytes.fromhex("{WEIGHTS[:100].hex()}"))
        http_get(url, buffer, resume_size=100, expected_size={len(WEIGHTS)})
        print(json.dumps(buffer.getvalue().hex()))
    """
    assert run_client(url, code, tmp_path / "hf") == WEIGHTS.hex()


@pytest.mark.e2e
def test_the_hf_command_downloads(served: tuple[str, str], tmp_path: Path) -> None:
    url, repo = served
    hf = Path(sys.executable).parent / "hf"
    env = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
    env |= {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf")}
    out = tmp_path / "out"
    answer = subprocess.run(
        [hf, "download", repo, "--local-dir", str(out)], env=env, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    for name, content in FILES.items():
        assert (out / name).read_bytes() == content


@pytest.mark.e2e
def test_a_hub_token_is_an_api_key_here(settings: ServiceSettings, tmp_path: Path) -> None:
    key = "a-key-of-some-length"
    app: FastAPI = create_app(settings.model_copy(update={"api_keys": (SecretStr(key),)}))
    running = run_server(app)
    try:
        repo = f"repaired/{repaired(running.services, FILES).id}"
        code = f"""
            import json
            from huggingface_hub import snapshot_download
            from huggingface_hub.errors import HfHubHTTPError
            try:
                snapshot_download("{repo}")
                print(200)
            except HfHubHTTPError as error:
                print(error.response.status_code)
        """
        assert run_client(running.url, code, tmp_path / "a", HF_TOKEN=key) == 200
        assert run_client(running.url, code, tmp_path / "b", HF_TOKEN="hf_other") == 401
    finally:
        running.stop()


@pytest.mark.e2e
def test_a_hub_client_finds_what_is_its_keys_owners(settings: ServiceSettings, tmp_path: Path) -> None:
    app: FastAPI = create_app(settings.model_copy(update={"require_keys": True}))
    running = run_server(app)
    try:
        keys = KeyStore(running.services.redis)
        repo = f"repaired/{repaired(running.services, FILES, owner='alice').id}"
        code = f"""
            import json
            from huggingface_hub import snapshot_download
            from huggingface_hub.errors import RepositoryNotFoundError
            try:
                snapshot_download("{repo}")
                print(200)
            except RepositoryNotFoundError as error:
                print(error.response.status_code)
        """
        for owner, status in (("alice", 200), ("bob", 404)):
            key = keys.create(owner, ["read"]).key
            assert run_client(running.url, code, tmp_path / owner, HF_TOKEN=key) == status
    finally:
        running.stop()
