"""A service that signs: what it hands out, by archive and by the Hub's protocol, is verified."""

import json
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi

from benchmarks.faults.adapters import make_adapter
from tests.cli.test_commands import loramend
from tests.e2e.test_main_job import submit
from tests.serve import serving
from tests.signing.keys import make_key, secret_of

pytestmark = pytest.mark.e2e


def test_pulled_and_downloaded_results_are_verified(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "signer")
    adapter = make_adapter(tmp_path / "adapter")
    with serving(tmp_path / "data", env={"LORAMEND_SIGN_KEY": str(private)}) as server:
        job = submit(server, adapter, {"steps": [{"type": "shrink"}]})
        assert job["status"] == "succeeded", job
        pulled, downloaded = tmp_path / "pulled", tmp_path / "downloaded"
        code, _, err = loramend("pull", f"{server.url}/jobs/{job['id']}", "--out", pulled)
        assert code == 0, err
        HfApi(server.url, token=False).snapshot_download(job["result"]["repo_id"], local_dir=downloaded)
        told = json.dumps(job) + httpx.get(f"{server.url}/jobs/{job['id']}/report").text
        logs = "".join(path.read_text() for path in (tmp_path / "data" / "logs").iterdir())
    for folder in (pulled, downloaded):
        code, out, _ = loramend("verify", folder, "--key", public)
        assert code == 0, out
        (folder / "adapter_config.json").write_text("{}")
        assert loramend("verify", folder, "--key", public)[0] == 1
    assert not any(secret in told + logs for secret in secret_of(private))
    assert str(private) not in told
