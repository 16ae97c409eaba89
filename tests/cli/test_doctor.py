"""`loramend doctor` on this machine, with a real broker, hub and server."""

import json
from pathlib import Path
from typing import Any

import pytest

from loramend.cli.checks.result import Diagnosis, Finding
from tests.cli.test_commands import loramend
from tests.hub.local import LocalHub
from tests.models import build_trio
from tests.serve import serving


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are the test's own, and nothing of this machine's settings is read."""
    for name in ("LORAMEND_SERVER", "LORAMEND_BROKER_URL", "LORAMEND_MODEL_ROOTS", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def diagnosed(*arguments: object, ok: bool) -> dict[str, Finding]:
    """The findings by name."""
    code, out, err = loramend("doctor", *arguments, "--json")
    assert err == ""
    diagnosis = Diagnosis.model_validate_json(out)
    assert (code, diagnosis.ok) == (0 if ok else 1, ok), out
    return {finding.name: finding for finding in diagnosis.findings}


def test_a_machine_that_works_has_nothing_to_put_right(tmp_path: Path) -> None:
    found = diagnosed("--offline", "--device", "cpu", ok=True)
    assert {finding.state for finding in found.values()} <= {"ok", "note"}
    assert "loramend 0." in found["versions"].found
    assert found["device"].found.startswith("cpu, ")
    assert "GiB free" in found["memory"].found
    assert found["disk, --cache"].state in ("ok", "note")
    assert found["broker"].found.startswith("bundled, Valkey ")
    assert found["model roots"].state == "note"
    assert not {"server", "Hub"} & found.keys()
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_each_thing_that_is_wrong_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = ["--device", "warp", "--data", tmp_path / "file" / "data", "--model-root", tmp_path / "none"]
    found = diagnosed("--offline", *wrong, ok=False)
    assert "--device" in found["device"].remedy
    assert "--data" in found["disk, --data"].remedy
    assert "--model-root" in found[f"model root {tmp_path / 'none'}"].remedy
    code, out, err = loramend("doctor", "--offline", *wrong)
    assert (code, err) == (1, "")
    assert "3 to put right." in out


def test_models_under_a_root_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_trio(tmp_path / "models")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(
        "LORAMEND_MODEL_ROOTS", json.dumps([str(tmp_path / "models"), str(tmp_path / "empty")])
    )
    found = diagnosed("--offline", ok=True)
    assert found[f"model root {tmp_path / 'models'}"].found == "holds 3 models"
    assert found[f"model root {tmp_path / 'empty'}"].state == "note"
    monkeypatch.setenv("LORAMEND_MODEL_ROOTS", "[")
    assert "JSON" in diagnosed("--offline", ok=False)["model roots"].found


def test_a_broker_is_asked(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("LORAMEND_BROKER_URL", broker_url)
    found = diagnosed(ok=True)
    assert " answers, version " in found["broker"].found
    assert "test-password" not in found["broker"].found
    assert found["Hub"].state == "note", "files here work without it"
    monkeypatch.setenv("LORAMEND_BROKER_URL", "redis://:secret@127.0.0.1:9/0")
    broker = diagnosed(ok=False)["broker"]
    assert "redis://127.0.0.1:9/0 does not answer" in broker.found
    assert "LORAMEND_BROKER_URL" in broker.remedy


def test_the_hub_is_asked_with_the_users_token(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    assert diagnosed(ok=True)["Hub"].state == "ok"
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    found = diagnosed(ok=False)["Hub"]
    assert "does not take" in found.found
    assert "hf_of_nobody" not in found.model_dump_json()


@pytest.mark.parametrize("server", ["http://127.0.0.1:9", "http://[", "http://a..b"])
def test_a_server_that_was_named_must_answer(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = diagnosed("--server", server, ok=False)["server"]
    assert found.found.startswith(f"none at {server}: ")
    assert "--server" in found.remedy


@pytest.mark.e2e
def test_a_server_with_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    key = "a-key-of-sixteen-characters"
    with serving(tmp_path / "data", env={"LORAMEND_API_KEYS": key}) as served:
        asked: list[Any] = ["--server", served.url]
        assert diagnosed(*asked, "--key", key, ok=True)["server"].found == f"{served.url} is ready"
        assert "wants an API key" in diagnosed(*asked, ok=False)["server"].found
        wrong = diagnosed(*asked, "--key", "another-key-of-sixteen", ok=False)["server"]
        assert "does not take the key" in wrong.found
        assert "--key" in wrong.remedy
        line = loramend("list", *asked)[2]
        assert line.startswith("loramend: unauthorized: ")
        assert "--key" in line
        monkeypatch.setenv("LORAMEND_KEY", key)
        assert loramend("list", *asked)[:2] == (0, "No jobs.\n")
