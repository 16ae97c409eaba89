"""`loramend pull` against a server that answers what a test tells it to, over real HTTP."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loramend.adapter.archive import pack
from loramend.cli.main import app

JOB = "0198f0a2b3c47d5e8f90a1b2c3d4e5f6"


class Answers:
    """What the server answers by path: (status, body); and the requests it got."""

    def __init__(self) -> None:
        self.by_path: dict[str, tuple[int, bytes]] = {}
        self.keys: list[str | None] = []
        self.url = ""

    def job(self, status: str, *, digest: str | None = None, detail: str | None = None) -> None:
        answer = {
            "id": JOB,
            "status": status,
            "result": {"report_digest": "0", "adapter_digest": digest} if status == "succeeded" else None,
            "error": {"code": "tensor_unpaired", "detail": detail} if detail else None,
        }
        self.by_path[f"/jobs/{JOB}"] = (200, json.dumps(answer).encode())

    def adapter(self, body: bytes) -> None:
        self.by_path[f"/jobs/{JOB}/adapter"] = (200, body)


@pytest.fixture
def answers() -> Iterator[Answers]:
    found = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.keys.append(self.headers["Authorization"])
            status, body = found.by_path.get(self.path, (404, b'{"code": "not_found", "detail": "No job."}'))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "download").write_text("a name that is nobody's")
    pack(folder, tmp_path / "adapter.tar.gz")
    return (tmp_path / "adapter.tar.gz").read_bytes()


def pull(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    result = CliRunner().invoke(app, ["pull", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("form", ["id", "url", "adapter url"])
def test_the_adapter_is_unpacked(answers: Answers, archive: bytes, tmp_path: Path, form: str) -> None:
    answers.job("succeeded", digest=hashlib.sha256(archive).hexdigest())
    answers.adapter(archive)
    what = {"id": JOB, "url": f"{answers.url}/jobs/{JOB}", "adapter url": f"{answers.url}/jobs/{JOB}/adapter"}
    server = ["--server", answers.url] if form == "id" else []
    code, out, err = pull(what[form], "--out", str(tmp_path / "out"), *server)
    assert (code, err) == (0, "")
    assert JOB in out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["adapter_config.json", "download"]
    assert not list(tmp_path.glob(".*")), "nothing temporary is left"


def test_the_key_is_sent_as_a_bearer_token(answers: Answers, archive: bytes, tmp_path: Path) -> None:
    answers.job("succeeded", digest=hashlib.sha256(archive).hexdigest())
    answers.adapter(archive)
    url = f"{answers.url}/jobs/{JOB}"
    assert pull(url, "--out", str(tmp_path / "out"), "--api-key", "secret")[0] == 0
    assert answers.keys == ["Bearer secret", "Bearer secret"]


def refused(answers: Answers, tmp_path: Path) -> str:
    """The one line of a pull that fails and leaves nothing."""
    before = sorted(tmp_path.iterdir())
    code, out, err = pull(f"{answers.url}/jobs/{JOB}", "--out", str(tmp_path / "out"))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    return err


def test_another_digest_is_refused(answers: Answers, archive: bytes, tmp_path: Path) -> None:
    answers.job("succeeded", digest="0" * 64)
    answers.adapter(archive)
    assert refused(answers, tmp_path).startswith("loramend: digest_mismatch: ")


def test_an_archive_that_leaves_its_folder_is_refused(answers: Answers, tmp_path: Path) -> None:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    answers.job("succeeded", digest=hashlib.sha256(buffer.getvalue()).hexdigest())
    answers.adapter(buffer.getvalue())
    assert refused(answers, tmp_path).startswith("loramend: archive_unsafe: ")


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        ("queued", None, "job_not_finished: job .* is still queued"),
        ("running", None, "job_not_finished: job .* is still running"),
        ("failed", "B has no partner.", "job_not_successful: job .* failed .*: B has no partner"),
        ("canceled", None, "job_not_successful: job .* was canceled"),
        ("succeeded", None, "job_not_successful: job .* was an inspection"),
    ],
)
def test_a_job_without_an_adapter_says_why(
    answers: Answers, tmp_path: Path, status: str, detail: str | None, said: str
) -> None:
    answers.job(status, detail=detail)
    assert re.search(said, refused(answers, tmp_path))


def test_the_servers_own_refusal_is_passed_on(answers: Answers, tmp_path: Path) -> None:
    assert refused(answers, tmp_path) == "loramend: not_found: No job.\n"


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"status": "succeeded", "result": 1, "error": 2}']
)
def test_what_is_no_loramend_server_is_called_that(answers: Answers, tmp_path: Path, body: bytes) -> None:
    answers.by_path[f"/jobs/{JOB}"] = (200, body)
    assert "server_unreachable" in refused(answers, tmp_path)


@pytest.mark.parametrize("status", [404, 500, 302])
def test_a_page_instead_of_a_problem_is_told_by_its_status(
    answers: Answers, tmp_path: Path, status: int
) -> None:
    answers.by_path[f"/jobs/{JOB}"] = (status, b"<html>")
    refused(answers, tmp_path)


def test_nobody_listening(answers: Answers, tmp_path: Path) -> None:
    answers.url = "http://127.0.0.1:9"
    assert refused(answers, tmp_path).startswith(
        "loramend: server_unreachable: no answer from http://127.0.0.1:9"
    )


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_asked(
    answers: Answers, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("mine")
    assert "output_exists" in refused(answers, tmp_path)
    assert answers.keys == []


@pytest.mark.parametrize("what", ["not a job", "ftp://host/jobs/1", "../jobs"])
def test_what_is_neither_id_nor_url_is_a_usage_error(tmp_path: Path, what: str) -> None:
    code, _, err = pull(what, "--out", str(tmp_path / "out"))
    assert code == 2
    assert "neither" in err
