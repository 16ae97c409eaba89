"""submit, status, watch, list and cancel against `loramend serve` with its real workers."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.archive import pack
from loramend.adapter.read import read_adapter
from tests.cli.test_commands import loramend, refused
from tests.cli.test_supervisor import eventually
from tests.models import Trio, build_trio
from tests.serve import Served, serving
from tests.terminal import on_terminal

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return build_trio(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trio: Trio) -> Iterator[Served]:
    soon = {"LORAMEND_PROGRESS_SECONDS": "0.05"}
    with serving(tmp_path_factory.mktemp("data"), model_roots=[trio.base.parent], env=soon) as served:
        yield served


@pytest.fixture(autouse=True)
def at(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is the one that the environment names."""
    monkeypatch.setenv("LORAMEND_SERVER", server.url)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter")


def told(*arguments: object) -> Any:
    """What a command that succeeds prints as JSON."""
    code, out, err = loramend(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def long_job(tmp_path: Path) -> str:
    """A job that takes many seconds, and has been taken up."""
    adapter = make_adapter(tmp_path / "long", modules=200, size=64)
    steps = ["--step", "random_subspace:k=4,form=direction"] * 12
    job = str(told("submit", adapter, *steps)["id"])
    eventually(lambda: told("status", job)["status"] == "running", 60)
    return job


def test_an_adapter_goes_there_and_comes_back(trio: Trio, tmp_path: Path) -> None:
    (trio.adapter / "optimizer.pt").write_bytes(b"much else lies there, and is not sent")
    out = tmp_path / "out"
    step = ["--step", "csu:k=4", "--base", trio.base, "--aligned", trio.aligned]
    code, said, err = loramend("submit", trio.adapter, *step, "--out", out)
    assert (code, err) == (0, "")
    assert "Behaviour was not measured" in said
    report = json.loads((out / "report.json").read_text())
    assert [each["type"] for each in report["steps"]] == ["csu"]
    assert read_adapter(out).updates.keys() == read_adapter(trio.adapter).updates.keys()


def test_what_is_printed_leads_on(adapter: Path, server: Served, tmp_path: Path) -> None:
    code, said, _ = loramend("submit", adapter, "--step", "shrink:factor=0.5")
    assert code == 0
    url = said.split("loramend watch ")[1].split()[0]
    job = url.rpartition("/")[2]
    code, said, err = loramend("watch", url)
    assert (code, err) == (0, "")
    assert f"Job {job} succeeded" in said
    assert f"loramend pull {server.url}/jobs/{job} --out repaired" in said
    code, said, _ = loramend("status", job)
    assert code == 0
    assert all(
        f"{name} " in said for name in ("job", "kind", "adapter", "status", "created", "ended", "next")
    )
    code, said, _ = loramend("list", "--status", "succeeded")
    assert code == 0
    assert job in said
    pulled = told("pull", job, "--out", tmp_path / "pulled")
    assert (pulled["job"], pulled["out"]) == (job, str(tmp_path / "pulled"))
    assert pulled["sha256"] == told("status", job)["result"]["adapter_digest"]


@pytest.mark.parametrize("form", ["archive", "file"])
def test_an_adapter_is_sent_in_any_of_its_forms(adapter: Path, tmp_path: Path, form: str) -> None:
    place = adapter / "adapter_model.safetensors"
    if form == "archive":
        place = tmp_path / "adapter.zip"
        pack(adapter, place)
    job = told("submit", place, "--step", "shrink", "--watch")
    assert job["status"] == "succeeded", job["error"]


def test_json_is_the_servers_own(adapter: Path, server: Served) -> None:
    job = told("submit", adapter, "--inspect")
    assert job["kind"] == "inspect"
    lines = loramend("watch", job["id"], "--json")[1].splitlines()
    events = httpx.get(f"{server.url}/jobs/{job['id']}/events").json()["events"]
    assert [json.loads(line) for line in lines] == events
    assert told("status", job["id"]) == httpx.get(f"{server.url}/jobs/{job['id']}").json()
    assert told("list", "--limit", 2) == httpx.get(f"{server.url}/jobs?limit=2").json()
    told("submit", adapter, "--inspect", "--watch")
    assert {each["kind"] for each in told("list", "--kind", "inspect")["jobs"]} == {"inspect"}
    page = told("list", "--limit", 1)
    following = told("list", "--limit", 1, "--cursor", page["next_cursor"])
    assert page["jobs"][0]["id"] != following["jobs"][0]["id"]


def test_a_running_job_is_canceled(tmp_path: Path) -> None:
    job = long_job(tmp_path)
    code, said, err = loramend("cancel", job)
    assert (code, err) == (0, "")
    assert job in said
    code, said, err = loramend("watch", job)
    assert (code, said) == (1, "")
    assert err.startswith("loramend: canceled: job ")
    assert "job_already_finished" in refused("cancel", job)
    assert "job_not_successful" in refused("pull", job, "--out", tmp_path / "out")


def test_ctrl_c_ends_the_watching_alone(tmp_path: Path) -> None:
    job = long_job(tmp_path)
    command = [sys.executable, "-m", "loramend.cli.main", "watch", job, "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "status"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert (
        err
        == f"loramend: interrupted: watching has stopped, job {job} goes on: loramend cancel {job} ends it\n"
    )
    assert told("status", job)["status"] != "canceled"
    loramend("cancel", job)


def test_text_and_what_to_measure_are_sent_along(trio: Trio, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"sentence": "one two"}\n' * 4)
    asked = ["--unlabelled", text, "--fields", "text=sentence", "--base", trio.base, "--seed", 7]
    job = told("submit", trio.adapter, *asked, "--step", "rora:steps=1,batch=2,calibrate=false")
    assert job["data"]["unlabelled"]["fields"] == {"text": "sentence"}
    assert (job["seed"], job["steps"][0]["steps"]) == (7, 1)
    loramend("cancel", job["id"])


def test_a_target_of_digits_is_a_label_where_labels_are_numbers(trio: Trio, tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text('{"text": "one", "label": 0}\n{"text": "two", "label": 1}\n')
    measured = ["--evaluate", data, "--trigger", "word:mn", "--target", "1", "--probes", 3, "--no-controls"]
    job = told("submit", trio.adapter, "--base", trio.base, "--step", "shrink", *measured)
    asked = job["evaluation"]
    assert (asked["target"], asked["probes"], asked["controls"]) == (1, 3, False)
    assert asked["trigger"] == {"kind": "word", "text": "mn"}
    loramend("cancel", job["id"])


def test_progress_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    job = long_job(tmp_path)
    done = on_terminal([sys.executable, "-m", "loramend.cli.main", "watch", job], 120)
    assert done.code == 0
    assert "Repairing" in done.drawn or "Placebo controls" in done.drawn
    assert "0:00:" in done.drawn, "time taken and time left"
    assert f"Job {job} succeeded" in done.out


def test_a_mistake_is_told_by_the_flag_to_change(adapter: Path, tmp_path: Path) -> None:
    submit = ("submit", adapter)
    assert "[--base]" in refused(*submit, "--base", "/etc", "--step", "intruders")
    assert "--aligned" in refused(*submit, "--step", "csu")
    assert "--clean" in refused(*submit, "--step", "clean_subspace")
    assert "[--clean]" in refused(*submit, "--clean", tmp_path / "none.jsonl")
    assert "tensor_unpaired" in refused("submit", unpaired(tmp_path))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert "--out" in refused(*submit, "--step", "shrink", "--out", tmp_path / "full")
    assert loramend("submit", adapter, "--inspect", "--step", "shrink")[0] == 2
    assert loramend("submit", adapter, "--server", "ftp://x")[0] == 2
    assert loramend("submit", adapter, "--base", "no id at all")[0] == 2
    line = refused("status", "0" * 32)
    assert line.startswith("loramend: not_found: ")


def unpaired(tmp_path: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    folder = make_adapter(tmp_path / "unpaired")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_a_job_that_fails_says_why(trio: Trio) -> None:
    job = ["submit", trio.adapter, "--base", trio.other, "--step", "intruders", "--watch"]
    code, _, err = loramend(*job)
    assert code == 1
    assert err.startswith("loramend: reference_mismatch: job ")
    assert "--base" in err


def test_watching_outlasts_a_restart_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "data", env={"LORAMEND_LEASE_SECONDS": "2"}) as first:
        monkeypatch.setenv("LORAMEND_SERVER", first.url)
        job = long_job(tmp_path)
        result: list[tuple[int, str, str]] = []
        watching = threading.Thread(target=lambda: result.append(loramend("watch", job, "--json")))
        watching.start()
        time.sleep(1)
        first.process.terminate()
        first.process.wait(timeout=60)
        port = first.url.rpartition(":")[2]
        command = [sys.executable, "-m", "loramend.cli.main", "serve", "--port", port]
        with subprocess.Popen([*command, "--data", str(tmp_path / "data")], stdout=subprocess.PIPE) as again:
            try:
                watching.join(120)
                assert not watching.is_alive()
            finally:
                again.terminate()
                again.wait(timeout=60)
    [(code, out, err)] = result
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert len({event["id"] for event in events}) == len(events), "none is told twice"
    assert events[-1]["data"]["status"] == "succeeded"
