"""`loramend repair --sign-key` and `loramend verify`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.adapters import make_adapter
from loramend.contracts.verification import Verification
from tests.cli.test_commands import loramend, refused
from tests.signing.keys import make_key, secret_of


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_key(tmp_path, "signer")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    adapter = make_adapter(tmp_path / "adapter")
    code, out, err = loramend(
        "repair", adapter, "--step", "shrink", "--out", tmp_path / "out", "--sign-key", keys[0]
    )
    assert code == 0, err
    assert "loramend verify" in out
    return tmp_path / "out"


def test_its_exit_code_says_how_far_it_holds(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, err = loramend("verify", signed, "--key", keys[1])
    assert (code, err) == (0, "")
    assert out.startswith("Verified.")
    code, out, _ = loramend("verify", signed)
    assert code == 3
    assert "not verified  the signature: no key was given" in out
    code, out, _ = loramend("verify", signed, "--key", keys[1], "--json")
    found = Verification.model_validate_json(out)
    assert (code, found.verdict, found.problems) == (0, "verified", [])

    (signed / "README.md").write_text("Trust me.")
    code, out, _ = loramend("verify", signed, "--key", keys[1])
    assert code == 1
    assert "wrong         README.md: not the bytes that were signed" in out
    code, out, _ = loramend("verify", signed, "--key", keys[1], "--json")
    assert (code, json.loads(out)["verdict"]) == (1, "failed")


def test_the_private_key_is_nowhere(signed: Path, keys: tuple[Path, Path]) -> None:
    for path in signed.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(line.encode() in content for line in secret_of(keys[0])), path
            assert keys[0].name.encode() not in content, path


def test_a_name_out_of_the_folder_cannot_steer_the_terminal(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / "\x1b[2Jx").write_text("")
    code, out, _ = loramend("verify", signed, "--key", keys[1])
    assert code == 1
    assert "\x1b" not in out


def test_what_cannot_be_used_is_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    assert "adapter_not_found" in refused("verify", tmp_path / "nowhere")
    assert "public half" in refused("verify", signed, "--key", keys[0])
    out = tmp_path / "other"
    told = refused("repair", signed, "--step", "shrink", "--out", out, "--sign-key", keys[1])
    assert "no private key" in told
    assert "--sign-key" in told
    assert not out.exists()


def test_replacing_a_signed_result(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, err = loramend("repair", tmp_path / "adapter", "--step", "shrink", "--out", signed, "--force")
    assert code == 0, err
    assert not (signed / "model.sig").exists()


@pytest.mark.e2e
def test_the_librarys_own_command_agrees(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    def theirs(folder: Path) -> int:
        return subprocess.run(
            [sys.executable, "-m", "model_signing", "verify", "key", str(folder), "--signature",
             str(folder / "model.sig"), "--public_key", str(keys[1])],
            capture_output=True, timeout=60,
        ).returncode  # fmt: skip

    assert theirs(signed) == 0
    changed = Path(shutil.copytree(signed, tmp_path / "changed"))
    (changed / "README.md").write_text("Trust me.")
    assert theirs(changed) != 0
