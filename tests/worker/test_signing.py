"""A worker that signs, and one that could not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.adapters import make_adapter
from tests.fixtures.worker import Bench
from tests.signing.keys import make_key, secret_of

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("kind", ["none there", "public", "Ed25519"])
def test_a_worker_with_a_key_that_cannot_sign_does_not_start(tmp_path: Path, kind: str) -> None:
    private, public = make_key(tmp_path, "signer", "Ed25519" if kind == "Ed25519" else "P-256")
    key = {"none there": tmp_path / "nowhere", "public": public, "Ed25519": private}[kind]
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        env={"LORAMEND_SIGN_KEY": str(key), "PATH": "/usr/bin:/bin", "LORAMEND_WORK_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("LORAMEND_SIGN_KEY: ")
    assert done.stderr.count("\n") == 1
    assert not any(line in done.stderr for line in secret_of(private))


def test_a_repair_that_cannot_be_signed_any_more_is_not_handed_out(bench: Bench, tmp_path: Path) -> None:
    private, _ = make_key(tmp_path, "signer")
    with bench.worker(LORAMEND_SIGN_KEY=str(private)):
        shutil.move(private, tmp_path / "moved")
        ended = bench.ended(bench.submit(make_adapter(tmp_path / "adapter")))
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "signing_key_invalid"
    assert str(tmp_path) not in ended.model_dump_json()
    assert ended.output == {}
