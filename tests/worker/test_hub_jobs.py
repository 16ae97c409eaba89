"""Jobs that fetch from a hub and publish to it, in real worker processes."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.fernet import Fernet
from huggingface_hub import HfApi
from pydantic import SecretStr
from safetensors.numpy import save

from benchmarks.faults.adapters import make_adapter
from loramend.contracts.report import Report
from loramend.contracts.request import Source
from loramend.signing.verify import verify_folder
from service.jobs.records import JobRecord, new_job_id
from service.jobs.secrets import Sealer, TokenVault
from tests.fixtures.worker import Bench
from tests.hub.local import LocalHub
from tests.signing.keys import make_key, secret_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def base_commit(hub: LocalHub) -> str:
    random = np.random.default_rng(1)
    weights = {
        f"model.layers.{index}.self_attn.q_proj.weight": random.standard_normal((32, 32)).astype(np.float32)
        for index in range(2)
    }
    return hub.put("org/base", {"model.safetensors": save(weights), "config.json": b"{}"})


def report_of(bench: Bench, record: JobRecord) -> Report:
    assert record.status == "succeeded", record.error
    assert record.report is not None
    return Report.model_validate_json(b"".join(bench.storage.open(record.report)))


def test_from_the_hub_and_back_to_it(bench: Bench, hub: LocalHub, base_commit: str, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base="org/base")
    commit = hub.put(
        "someone/adapter", {path.name: path.read_bytes() for path in adapter.iterdir()}, private=True
    )
    hub.accounts.add_user("someone")
    token = hub.accounts.add_token("someone", "write")
    key = Fernet.generate_key().decode()
    vault = TokenVault(bench.redis, Sealer(SecretStr(key)))
    private, public = make_key(tmp_path, "signer")
    bench.env |= {"LORAMEND_HUB_ENDPOINT": hub.endpoint, "LORAMEND_SECRET_KEY": key, "HF_TOKEN": ""}
    bench.env["LORAMEND_SIGN_KEY"] = str(private)

    job_id = new_job_id()
    vault.put(job_id, SecretStr(token))
    with bench.worker(["io"]) as io, bench.worker(["spectral"]) as spectral:
        record = bench.submit(
            None,
            id=job_id,
            phase_queue="io",
            source=Source(hub_id="someone/adapter"),
            steps=None,
            publish={"repo_id": "someone/repaired"},
        )
        ended = bench.ended(record)
        report = report_of(bench, ended)
        logs = io.log.read_text() + spectral.log.read_text()
    assert ended.attempts == 1
    assert ended.source_resolved == {"hub_id": "someone/adapter", "revision": commit}
    assert report.provenance.source == ended.source_resolved
    assert [step.type for step in report.steps] == ["intruders"]
    assert [(read.role, read.name) for read in report.references] == [("base", f"org/base@{base_commit}")]
    assert ended.result is not None
    assert ended.result.published is not None
    assert ended.result.published.repo_id == "someone/repaired"
    published = hub.repo("someone/repaired")
    names = {entry.path for entry in published.entries(ended.result.published.commit)}
    assert names == {*ended.output, ".gitattributes"}
    assert vault.get(job_id) is None
    assert token not in logs

    pulled = tmp_path / "pulled"
    HfApi(hub.endpoint, token).snapshot_download("someone/repaired", local_dir=pulled)
    found = verify_folder(pulled, public)
    assert (found.verdict, found.problems) == ("verified", [])
    origin = json.loads((pulled / "loramend.json").read_text())
    assert (origin["job"], origin["source"]) == (job_id, ended.source_resolved)
    assert origin["steps"] == [step.model_dump(mode="json") for step in report.steps]
    assert origin["references"][0]["sha256"] == report.references[0].sha256
    told = logs + ended.model_dump_json() + report.model_dump_json()
    assert not any(secret in told for secret in [*secret_of(private), str(private)])


def test_an_upload_whose_base_is_on_the_hub(
    bench: Bench, hub: LocalHub, base_commit: str, tmp_path: Path
) -> None:
    """It begins on queue spectral, which sends it to io for the model and gets it back."""
    bench.env |= {"LORAMEND_HUB_ENDPOINT": hub.endpoint, "HF_TOKEN": ""}
    adapter = make_adapter(tmp_path / "adapter", base="org/base")
    with bench.worker():
        ended = bench.ended(bench.submit(adapter, steps=[{"type": "rescale", "layers": "all"}]))
        assert report_of(bench, ended).references[0].name == f"org/base@{base_commit}"
        assert ended.attempts == 1
        # Another machine, with a cache of its own, finds the model fetched by the first not there.
        moved = bench.submit(adapter, steps=[{"type": "rescale", "layers": "all"}], references={
            "base": {"name": f"org/base@{base_commit}", "path": "/elsewhere", "hub_id": "org/base",
                     "revision": base_commit}
        })  # fmt: skip
        assert bench.ended(moved).status == "succeeded"
        unknown = bench.submit(make_adapter(tmp_path / "other", base="org/none"), steps=None)
        ended = bench.ended(unknown)
        assert ended.error is not None
        assert ended.error.code == "hub_not_found"
