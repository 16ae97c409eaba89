"""Jobs in a real worker process on a real server: what goes in, what comes out, what is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.faults.adapters import LONG_STEPS, make_adapter, make_long_adapter
from loramend.adapter.archive import extract
from loramend.adapter.limits import Limits
from loramend.contracts.report import Report
from service.jobs.records import JobRecord
from service.jobs.store import JobStore
from tests.fixtures.broker import running_broker
from tests.fixtures.worker import Bench, WorkerProcess, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, WorkerProcess]]:
    """One worker on a server of its own, for all tests of this module."""
    root = tmp_path_factory.mktemp("bench")
    with running_broker() as url:
        bench = Bench(root, url, {"LORAMEND_MODEL_ROOTS": str(root / "models")})
        with bench.worker(LORAMEND_RESEND_SECONDS="0.3") as worker:
            yield bench, worker
        bench.close()


@pytest.fixture
def bench(shared: tuple[Bench, WorkerProcess]) -> Bench:
    return shared[0]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture(scope="module")
def long_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_long_adapter(tmp_path_factory.mktemp("adapters") / "long")


def materialised(bench: Bench, record: JobRecord, folder: Path) -> Path:
    for name, ref in record.output.items():
        bench.storage.fetch(ref, folder / name)
    return folder


def delta(tensors: dict[str, Any], index: int) -> Any:
    key = f"base_model.model.model.layers.{index}.self_attn.q_proj"
    return tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]


def failed(bench: Bench, adapter: Path, **fields: Any) -> tuple[str, str]:
    """The code and the detail that the job ends with."""
    ended = bench.ended(bench.submit(adapter, **fields))
    assert ended.status == "failed"
    assert ended.error is not None
    assert (ended.result, ended.output, ended.archive) == (None, {}, None)
    return ended.error.code, ended.error.detail


def test_an_adapter_is_repaired(bench: Bench, adapter: Path, tmp_path: Path) -> None:
    ended = bench.ended(bench.submit(adapter, source_resolved={"upload": "0" * 64}))
    assert (ended.status, ended.attempts, ended.error) == ("succeeded", 1, None)
    assert ended.result is not None
    assert ended.archive is not None
    assert ended.result.adapter_digest == ended.archive.sha256
    assert ended.result.repo_id == f"repaired/{ended.id}"
    assert ended.result.revision is not None
    assert len(ended.result.revision) == 40

    out = materialised(bench, ended, tmp_path / "out")
    before, after = (
        load_file(adapter / "adapter_model.safetensors"),
        load_file(out / "adapter_model.safetensors"),
    )
    config = json.loads((out / "adapter_config.json").read_text())
    for index in range(2):
        scaled = config["lora_alpha"] / config["r"] * delta(after, index)
        np.testing.assert_allclose(scaled, 0.5 * 2 * delta(before, index), rtol=1e-5, atol=1e-5)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / "original" / name).read_bytes() == (adapter / name).read_bytes()
    report = Report.model_validate_json((out / "report.json").read_text())
    assert report.provenance.source == {"upload": "0" * 64}
    assert [step.type for step in report.steps] == ["shrink"]
    assert ended.report == ended.output["report.json"]
    assert ended.report_html == ended.output["report.html"]
    assert ended.report_sarif == ended.output["report.sarif"]
    assert report.summary[0] in (out / "report.html").read_text(encoding="utf-8")
    assert ended.result.report_digest == ended.report.sha256
    assert (out / "README.md").read_text().startswith("---\n")

    bench.storage.fetch(ended.archive, tmp_path / "adapter.tar.gz")
    unpacked = extract(tmp_path / "adapter.tar.gz", tmp_path / "unpacked", Limits())
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert names == set(ended.output)

    assert bench.statuses(ended) == ["queued", "running", "succeeded"]
    events = bench.store.events(ended.id)
    assert {"measure", "repair", "write"} <= {e.data["phase"] for e in events if e.type == "progress"}
    assert list(bench.work_dir.iterdir()) == []
    assert all(str(key).startswith("loramend:") for key in bench.redis.keys("*"))


def test_an_adapter_is_inspected(bench: Bench, adapter: Path) -> None:
    ended = bench.ended(bench.submit(adapter, kind="inspect", steps=None, threat=None))
    assert ended.status == "succeeded"
    assert ended.report is not None
    report = Report.model_validate_json(b"".join(bench.storage.open(ended.report)))
    assert (report.kind, len(report.modules)) == ("inspect", 2)
    assert ended.report_html is not None
    assert ended.report_sarif is not None
    assert report.summary[0] in b"".join(bench.storage.open(ended.report_html)).decode()
    assert ended.result is not None
    assert ended.result.model_dump(exclude_none=True) == {"report_digest": ended.report.sha256}
    assert ended.output == {}


def test_only_the_child_loads_torch(shared: tuple[Bench, WorkerProcess], adapter: Path) -> None:
    bench, worker = shared
    bench.ended(bench.submit(adapter))
    maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in (worker.process.pid, worker.child().pid)}
    assert ["libtorch" in text for text in maps.values()] == [False, True]


def test_what_the_adapter_holds_is_checked_again(bench: Bench, adapter: Path, tmp_path: Path) -> None:
    bad = make_adapter(tmp_path / "bad")
    tensors = load_file(bad / "adapter_model.safetensors")
    name = next(iter(tensors))
    tensors[name][0, 0] = np.nan
    save_file(tensors, bad / "adapter_model.safetensors")
    code, detail = failed(bench, bad)
    assert code == "tensor_not_finite"
    assert name.removesuffix(".weight") in detail or name in detail


def test_models_must_be_known_and_allowed(bench: Bench, adapter: Path, tmp_path: Path) -> None:
    csu = [{"type": "csu"}]
    assert failed(bench, adapter, steps=None)[0] == "no_default_recipe"
    code, detail = failed(bench, adapter, steps=csu)
    assert code == "reference_required"
    assert "csu" in detail
    assert failed(bench, adapter, steps=csu, base={"path": str(tmp_path)})[0] == "path_not_allowed"
    missing = str(bench.root / "models" / "missing")
    assert failed(bench, adapter, steps=csu, base={"path": missing})[0] == "reference_not_found"


def test_the_base_that_the_adapter_names_is_used_where_it_is_allowed(bench: Bench, tmp_path: Path) -> None:
    model = bench.root / "models" / "base"
    model.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    weights = {
        f"model.layers.{index}.self_attn.q_proj.weight": random.standard_normal((32, 32)).astype(np.float32)
        for index in range(2)
    }
    save_file(weights, model / "model.safetensors")
    adapter = make_adapter(tmp_path / "adapter", base=str(model))
    ended = bench.ended(bench.submit(adapter, steps=None))
    assert ended.status == "succeeded", ended.error
    assert ended.report is not None
    report = Report.model_validate_json(b"".join(bench.storage.open(ended.report)))
    assert [step.type for step in report.steps] == ["intruders"]
    assert [(read.role, read.name) for read in report.references] == [("base", str(model))]


def test_a_lost_blob_fails_the_job_and_no_other(bench: Bench, adapter: Path, tmp_path: Path) -> None:
    lonely = make_adapter(tmp_path / "lonely", rank=3)
    record = bench.submit(lonely, send=False)
    bench.storage.delete(record.input["adapter_model.safetensors"].sha256)
    bench.dispatcher.send(record.id, "spectral")
    ended = bench.ended(record)
    assert ended.error is not None
    assert ended.error.code == "storage_unavailable"
    assert bench.ended(bench.submit(adapter)).status == "succeeded"


def test_a_job_whose_message_was_lost_is_sent_again(bench: Bench, adapter: Path) -> None:
    impatient = replace(bench)
    impatient.store = JobStore(bench.redis, resend_seconds=0.2)
    record = impatient.submit(adapter, send=False)
    assert bench.ended(record).status == "succeeded"


def test_a_message_that_names_no_job_is_dropped(shared: tuple[Bench, WorkerProcess], adapter: Path) -> None:
    bench, worker = shared
    bench.dispatcher.send("f" * 32, "spectral")
    bench.dispatcher.send("../../etc/passwd", "spectral")
    assert bench.ended(bench.submit(adapter)).status == "succeeded"
    wait_for(lambda: bench.redis.hlen("loramend:mq:unacked") == 0, what="every message to be acknowledged")
    assert worker.process.poll() is None


def test_an_unexpected_error_is_logged_and_not_told(bench: Bench, adapter: Path) -> None:
    """A device that is not there, on a worker of its own queue."""
    with bench.worker(["train"], LORAMEND_DEVICE="nonsense") as worker:
        record = bench.submit(adapter, phase_queue="train")
        ended = bench.ended(record)
        assert worker.terminate() == 0
        log = worker.log.read_text()
    assert ended.error is not None
    assert ended.error.code == "internal_error"
    assert "nonsense" not in ended.error.model_dump_json()
    assert "Traceback" in log
    assert record.id in log


def test_a_running_job_is_canceled_between_modules(bench: Bench, long_adapter: Path) -> None:
    record = bench.submit(long_adapter, steps=LONG_STEPS)
    queued = bench.submit(long_adapter, steps=LONG_STEPS)
    bench.until_phase(record, "repair")
    assert bench.store.request_cancel(queued.id).status == "canceled"
    assert bench.store.request_cancel(record.id).status == "running"
    ended = bench.ended(record, 10)
    assert (ended.status, ended.error, ended.output) == ("canceled", None, {})
    wait_for(lambda: not list(bench.work_dir.iterdir()), 5, "the folder to go")
    assert bench.statuses(record) == ["queued", "running", "canceled"]
    assert bench.statuses(queued) == ["queued", "canceled"]


def test_a_job_deleted_while_it_runs_stops_and_leaves_nothing(
    shared: tuple[Bench, WorkerProcess], tmp_path: Path
) -> None:
    bench, worker = shared
    record = bench.submit(make_long_adapter(tmp_path / "adapter", rank=5), steps=LONG_STEPS)
    bench.until_phase(record, "repair")
    bench.store.blobs.delete(bench.store.delete(record.id), bench.storage)
    wait_for(lambda: not list(bench.work_dir.iterdir()), 10, "the folder to go")
    wait_for(lambda: f"{record.id} was taken away" in worker.log.read_text(), 5, "the worker to notice")
    assert not [key for key in bench.redis.keys("*") if record.id in str(key)]
    assert all(bench.storage.exists(ref.sha256) is None for ref in record.input.values())
