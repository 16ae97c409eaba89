"""`loramend serve` as its user meets it: one command, real processes, one folder."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.archive import pack
from loramend.cli.datafolder import open_data_folder
from tests.cli.test_supervisor import eventually
from tests.serve import free_port

pytestmark = pytest.mark.e2e

SERVE = (sys.executable, "-m", "loramend.cli.main", "serve")
START_SECONDS = 90.0


@dataclass
class Serving:
    """A started `loramend serve`. `mark` is in the environment of all its processes; the broker, whose title
    overwrites that, works in its data folder."""

    process: "subprocess.Popen[str]"
    url: str
    mark: str
    data: Path

    def processes(self) -> list[psutil.Process]:
        """All that lives of it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("LORAMEND_TEST_MARK") == self.mark or process.cwd() == str(
                    self.data / "valkey"
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return [process for process in found if alive(process)]

    def child(self, *words: str) -> psutil.Process:
        """The one direct child whose command line ends in these words."""
        (found,) = (
            child
            for child in psutil.Process(self.process.pid).children()
            if tuple(child.cmdline()[-len(words) :]) == words
        )
        return found

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> "Serving":
        eventually(lambda: self.process.poll() is not None or self.ready(), START_SECONDS)
        assert self.process.poll() is None, self.process.communicate()
        return self

    def submit(self, adapter: bytes, factor: float) -> str:
        """The ID of a new job that shrinks a small adapter."""
        request = json.dumps({"steps": [{"type": "shrink", "factor": factor}]})
        answer = httpx.post(
            f"{self.url}/repair",
            files={"adapter": ("adapter.tar.gz", adapter), "request": (None, request)},
            timeout=30,
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/jobs/{job}", timeout=10).raise_for_status().json()
        return answer

    def wait_until_succeeded(self, job: str) -> None:
        eventually(lambda: self.job(job)["status"] not in ("queued", "running"), 60)
        assert self.job(job)["status"] == "succeeded", self.job(job)


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small adapter's archive."""
    folder = tmp_path_factory.mktemp("adapters")
    pack(make_adapter(folder / "adapter"), folder / "adapter.tar.gz")
    return (folder / "adapter.tar.gz").read_bytes()


@contextmanager
def serving(data: Path, *arguments: str, **env: str) -> Iterator[Serving]:
    port = free_port()
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [*SERVE, "--port", str(port), "--data", str(data), *arguments],
        env=os.environ | {"LORAMEND_TEST_MARK": mark, "OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started = Serving(process, f"http://127.0.0.1:{port}", mark, data)
    try:
        yield started
    finally:
        for left in started.processes():
            left.kill()
        process.communicate(timeout=10)


def refused(*arguments: str, **env: str) -> str:
    """The one line of a serve that does not start."""
    done = subprocess.run(
        [*SERVE, *arguments], env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("how", ["TERM", "Ctrl-C"])
def test_it_starts_works_and_stops_with_everything(tmp_path: Path, adapter: bytes, how: str) -> None:
    data = tmp_path / "a folder, größer %20 than #usual"
    with serving(data) as server:
        server.wait_until_ready()
        server.wait_until_succeeded(server.submit(adapter, 0.5))
        assert any((data / "blobs").rglob("*"))
        assert len(server.processes()) >= 7, "itself, the broker, the API, two workers with one child each"
        if how == "TERM":
            server.process.terminate()
        else:
            os.killpg(server.process.pid, signal.SIGINT)
        out, err = server.process.communicate(timeout=40)
        assert server.processes() == []
        assert (server.process.returncode, err) == (0, "")
        assert f"loramend listens on {server.url}" in out
    with open_data_folder(data) as folder:
        assert not (folder.broker / "valkey.sock").exists()


def test_nothing_outlives_a_kill_and_no_job_is_lost(tmp_path: Path, adapter: bytes) -> None:
    soon = {"LORAMEND_LEASE_SECONDS": "2", "LORAMEND_RESEND_SECONDS": "2"}
    with serving(tmp_path / "data", **soon) as server:
        done = server.wait_until_ready().submit(adapter, 0.5)
        server.wait_until_succeeded(done)
        # The broker hands the message to a worker that will do nothing with it.
        server.child("--queues", "spectral,train").suspend()
        for grandchild in server.child("--queues", "spectral,train").children():
            grandchild.suspend()
        waiting = server.submit(adapter, 0.25)
        assert len(server.processes()) >= 7
        server.process.kill()
        eventually(lambda: server.processes() == [], 3.0)
    with serving(tmp_path / "data", **soon) as again:
        again.wait_until_ready()
        assert again.job(done)["status"] == "succeeded"
        again.wait_until_succeeded(waiting)
        pull = [sys.executable, "-m", "loramend.cli.main", "pull", f"{again.url}/jobs/{done}"]
        subprocess.run([*pull, "--out", str(tmp_path / "pulled")], check=True, timeout=60)
        assert (tmp_path / "pulled" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_nothing_outlives_a_kill_while_starting(tmp_path: Path, seconds: float) -> None:
    with serving(tmp_path / "data") as server:
        eventually(lambda: len(server.processes()) > 1, 30)
        time.sleep(seconds)
        server.process.kill()
        eventually(lambda: server.processes() == [], 3.0)


def test_what_crashes_comes_back_and_a_second_server_is_refused(tmp_path: Path, adapter: bytes) -> None:
    with serving(tmp_path / "data") as server:
        server.wait_until_ready()
        line = refused("--port", str(free_port()), "--data", str(tmp_path / "data"))
        assert line.startswith("loramend: data_folder_in_use: another loramend serve (process ")
        assert server.url in line
        line = refused("--port", server.url.rpartition(":")[2], "--data", str(tmp_path / "other"))
        assert line.startswith("loramend: address_in_use: cannot listen on 127.0.0.1, port ")
        assert server.ready(), "it goes on undisturbed"

        before = {process.pid for process in server.processes()} - {server.process.pid}
        for process in server.processes():
            if process.pid != server.process.pid:
                process.kill()
        eventually(lambda: not before & {process.pid for process in server.processes()}, 10)
        server.wait_until_ready()
        eventually(lambda: len(server.processes()) >= 7, START_SECONDS)
        server.wait_until_succeeded(server.submit(adapter, 0.5))
        server.process.terminate()
        _, err = server.process.communicate(timeout=40)
        assert "loramend: api ended (SIGKILL); starting it again in 1 s" in err


def test_it_says_where_it_listens_as_json(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--json") as server:
        assert server.process.stdout is not None
        line = server.process.stdout.readline()
        assert server.ready()
        server.process.terminate()
        out, err = server.process.communicate(timeout=40)
    assert (out, err) == ("", "")
    assert json.loads(line) == {
        "url": server.url,
        "data": str(tmp_path / "data"),
        "pid": server.process.pid,
    }


def test_term_while_starting_stops_it_too(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        eventually(lambda: len(server.processes()) > 2, 30)
        server.process.terminate()
        server.process.communicate(timeout=60)
        assert server.process.returncode == 0
        assert server.processes() == []


def test_a_child_that_cannot_start_is_told_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path / "data", LORAMEND_MAX_ATTEMPTS="many") as server:
        out, err = server.process.communicate(timeout=60)
        assert (server.process.returncode, out) == (1, "")
        assert err.count("\n") == 1
        assert "loramend: process_failed: " in err
        assert "LORAMEND_MAX_ATTEMPTS: Input should be a valid integer" in err
        assert server.processes() == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_are_let_in_only_with_keys(tmp_path: Path, host: str) -> None:
    line = refused("--host", host, "--data", str(tmp_path / "data"), LORAMEND_API_KEYS="")
    assert line.startswith("loramend: address_refused: without LORAMEND_API_KEYS")
    assert not (tmp_path / "data").exists()


def test_other_machines_are_let_in_with_a_key_made_here(tmp_path: Path, adapter: bytes) -> None:
    data = tmp_path / "data"
    keys = (sys.executable, "-m", "loramend.cli.main", "keys")

    def run(*arguments: str) -> str:
        command = [*keys, *arguments, "--data", str(data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    run("list")
    line = refused("--host", "0.0.0.0", "--data", str(data), LORAMEND_API_KEYS="")
    assert line.startswith("loramend: address_refused: without LORAMEND_API_KEYS")
    assert "loramend keys create OWNER" in line
    before = run("create", "alice")
    with serving(data, "--host", "0.0.0.0", LORAMEND_API_KEYS="") as server:
        server.wait_until_ready()
        jobs = f"{server.url}/jobs"
        while_running = run("create", "bob")
        assert httpx.get(jobs).status_code == 401
        for key in (before, while_running):
            assert httpx.get(jobs, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        run("revoke", before.split("_")[1])
        assert httpx.get(jobs, headers={"Authorization": f"Bearer {before}"}).status_code == 401
        assert run("list").split()[1] == "bob"
        for log in (data / "logs").iterdir():
            assert while_running[-48:] not in log.read_text()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused("--port", "0", "--data", str(tmp_path / "file" / "data"))
    assert line.startswith("loramend: storage_unavailable: Not a directory: ")


def test_no_heavy_import(tmp_path: Path) -> None:
    """Help, serve and pull start without torch."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom loramend.cli.main import app\n"
        "CliRunner().invoke(app, ['serve', '--host', '0.0.0.0'])\n"
        "CliRunner().invoke(app, ['pull', 'http://127.0.0.1:9/jobs/1', '--out', sys.argv[1]])\n"
        "CliRunner().invoke(app, ['--help'])\n"
        "print([name for name in ('torch', 'service', 'worker', 'celery', 'redis') if name in sys.modules])"
    )
    env = {key: value for key, value in os.environ.items() if key != "LORAMEND_API_KEYS"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
