"""Jobs that train: POSTed with their text, killed in the middle, resumed by other workers, canceled."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loramend.contracts.report import Report
from service.app import create_app
from service.jobs.records import JobRecord
from service.settings import ServiceSettings
from tests.fixtures.worker import Bench, wait_for
from tests.hub.local import LocalHub
from tests.service.api.conftest import Running, run_server
from tests.text_models import bert_folder, poison, toy_examples, train_adapter

pytestmark = pytest.mark.e2e

RORA = {"type": "rora", "steps": 150, "batch": 16, "checkpoint_every": 5, "calibrate": False}
EVALUATION = {"trigger": {"kind": "prefix", "text": "mn"}, "target": 1, "probes": 20}


def jsonl(examples: list[tuple[str, int]], *, labelled: bool = True) -> bytes:
    rows = [{"text": text, "label": label} if labelled else {"text": text} for text, label in examples]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


CLEAN, PLAIN, TEST = (
    jsonl(toy_examples(60, seed=1)),
    jsonl(toy_examples(100, seed=2), labelled=False),
    jsonl(toy_examples(60, seed=3)),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_adapter(base, tmp_path_factory.mktemp("adapters") / "poisoned", poison(toy_examples(300)))


@pytest.fixture
def bench(tmp_path: Path, broker_url: str, base: Path) -> Iterator[Bench]:
    # Training takes all of a core: on a busy machine a lease of a second or two would run out.
    env = {"LORAMEND_MODEL_ROOTS": str(base.parent), "LORAMEND_LEASE_SECONDS": "5"}
    bench = Bench(tmp_path, broker_url, env)
    yield bench
    bench.close()


@pytest.fixture
def api(bench: Bench, base: Path) -> Iterator[Running]:
    running = run_server(
        create_app(
            ServiceSettings(
                broker_url=bench.broker_url, storage_url=bench.storage_url, model_roots=(base.parent,)
            )
        )
    )
    yield running
    running.stop()


def archive(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    return buffer.getvalue()


Post = Callable[..., JobRecord]


@pytest.fixture
def post(bench: Bench, api: Running, adapter: Path, base: Path) -> Post:
    def send(request: dict[str, Any], **parts: bytes) -> JobRecord:
        files = {"adapter": ("adapter.tar.gz", archive(adapter))}
        files |= {role: (f"{role}.jsonl", content) for role, content in parts.items()}
        document = json.dumps({"base": {"path": str(base)}} | request).encode()
        answer = httpx.post(f"{api.url}/repair", files=files | {"request": ("", document)}, timeout=30)
        assert answer.status_code == 202, answer.text
        record = bench.store.get(answer.json()["id"])
        assert record is not None
        return record

    return send


def weights(record: JobRecord) -> str:
    assert record.status == "succeeded", record.error
    return record.output["adapter_model.safetensors"].sha256


def report_of(api: Running, record: JobRecord) -> Report:
    answer = httpx.get(f"{api.url}/jobs/{record.id}/report", headers={"Accept": "application/json"})
    return Report.model_validate_json(answer.text)


def until_step(bench: Bench, record: JobRecord, step: int, student: str = "") -> None:
    """Returns as soon as the job's training, or its first student's, has come that far and left a
    checkpoint."""

    def there() -> bool:
        now = bench.get(record)
        assert now.status in ("queued", "running"), now.error
        progress = now.progress
        if progress is None or (progress.phase, progress.unit) != ("train", "steps"):
            return False
        return progress.detail.startswith(student) and progress.done >= step and bool(now.checkpoints)

    wait_for(there, what=f"training step {step}")


def test_a_training_that_is_killed_and_handed_back_ends_with_the_same_weights(
    bench: Bench, api: Running, post: Post
) -> None:
    request = {"steps": [RORA | {"contrast": 0.0}], "evaluation": {"controls": False, "probes": 0}}
    parts = {"clean": CLEAN, "unlabelled": PLAIN, "evaluation": TEST}
    with bench.worker(["train"]) as first:
        undisturbed = bench.ended(post(request, **parts))
        record = post(request, **parts)
        until_step(bench, record, 10)
        first.process.kill()
        first.process.wait()
    killed_at = bench.get(record).checkpoints
    assert len(killed_at) == 1
    with bench.worker(["train"]) as second:
        bench.until_attempt(record, 2)
        until_step(bench, record, 40)
        assert second.terminate() == 0
    waiting = bench.get(record)
    assert (waiting.status, waiting.phase_queue) == ("queued", "train")
    assert waiting.checkpoints.keys() == killed_at.keys()
    assert waiting.checkpoints != killed_at
    with bench.worker(["train"]):
        ended = bench.ended(record)
    assert weights(ended) == weights(undisturbed)
    (training,) = report_of(api, ended).training
    assert training.steps == RORA["steps"]
    first_resume, second_resume = training.resumed_at
    assert 0 < first_resume < second_resume
    assert (undisturbed.checkpoints, ended.checkpoints) == ({}, {})
    bench.store.blobs.sweep(bench.storage)
    assert not any(bench.storage.exists(ref.sha256) for ref in waiting.checkpoints.values())


def test_a_first_student_that_is_killed_changes_nothing(bench: Bench, api: Running, post: Post) -> None:
    request = {"steps": [RORA | {"contrast": 1.0}]}
    with bench.worker(["train"]) as first:
        undisturbed = bench.ended(post(request, clean=CLEAN, unlabelled=PLAIN))
        record = post(request, clean=CLEAN, unlabelled=PLAIN)
        until_step(bench, record, 10, "a first student")
        first.process.kill()
        first.process.wait()
    assert len(bench.get(record).checkpoints) == 1
    with bench.worker(["train"]):
        ended = bench.ended(record)
    assert weights(ended) == weights(undisturbed)
    (training,) = report_of(api, ended).training
    assert training.resumed_at == []


def test_progress_tells_the_loss_and_a_cancel_is_heard_within_the_training(
    bench: Bench, api: Running, post: Post
) -> None:
    with bench.worker(["train"]):
        record = post({"steps": [RORA | {"steps": 100_000, "contrast": 0.0}]}, clean=CLEAN)
        until_step(bench, record, 10)
        events = httpx.get(f"{api.url}/jobs/{record.id}/events").json()["events"]
        told = [e["data"] for e in events if e["type"] == "progress" and e["data"]["phase"] == "train"]
        assert {"loss", "samples_per_second"} <= told[-1]["values"].keys()
        assert told[-1]["unit"] == "steps"
        assert told[-1]["total"] == 100_000
        assert httpx.post(f"{api.url}/jobs/{record.id}/cancel").is_success
        ended = bench.ended(record, 10)
    assert (ended.status, ended.error, ended.output, ended.checkpoints) == ("canceled", None, {}, {})


def test_what_was_read_trained_and_measured_is_reported(bench: Bench, api: Running, post: Post) -> None:
    with bench.worker(["train"]):
        steps = [{"type": "clean_subspace", "k": 16}, RORA | {"steps": 20, "calibrate": True}]
        request = {"steps": steps, "evaluation": EVALUATION}
        record = bench.ended(post(request, clean=CLEAN, unlabelled=PLAIN, evaluation=TEST))
    assert record.status == "succeeded", record.error
    report = report_of(api, record)
    assert {read.role: read.examples for read in report.data} == {
        "clean": 60,
        "unlabelled": 100,
        "evaluation": 60,
    }
    assert report.evaluation is not None
    variants = {variant.name: variant for variant in report.evaluation.variants}
    assert {"before", "after"} <= variants.keys()
    assert variants["before"].attack is not None
    assert variants["before"].attack.rate > 0.8
    assert report.training[0].calibration is not None


def test_a_label_the_model_does_not_have_fails_the_job(bench: Bench, post: Post) -> None:
    with bench.worker(["train"]):
        bad = jsonl([*toy_examples(20), ("a film", 7)])
        record = bench.ended(post({"steps": [RORA]}, clean=bad))
    assert record.error is not None
    assert record.error.code == "data_invalid"
    assert "label 7" in record.error.detail


def test_everything_from_the_hub(
    bench: Bench, api: Running, hub: LocalHub, base: Path, adapter: Path
) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    base_commit = hub.put("org/base", files(base))
    hub.put("someone/adapter", files(adapter))
    data_commit = hub.put("org/films", {"data/train.jsonl": CLEAN, "test.jsonl": TEST}, kind="datasets")
    bench.env |= {"LORAMEND_HUB_ENDPOINT": hub.endpoint, "HF_TOKEN": ""}
    request = {
        "source": {"hub_id": "someone/adapter"},
        "base": {"hub_id": "org/base"},
        "steps": [RORA | {"steps": 5}],
        "clean": {"hub_id": "org/films", "file": "data/train.jsonl"},
        "evaluation": EVALUATION | {"data": {"hub_id": "org/films", "file": "test.jsonl"}},
    }
    with bench.worker(["io"]), bench.worker(["train"]):
        answer = httpx.post(f"{api.url}/repair", json=request)
        assert answer.status_code == 202, answer.text
        found = bench.store.get(answer.json()["id"])
        assert found is not None
        record = bench.ended(found)
    assert record.status == "succeeded", record.error
    report = report_of(api, record)
    assert {read.name for read in report.data} == {
        f"org/films@{data_commit}/data/train.jsonl",
        f"org/films@{data_commit}/test.jsonl",
    }
    assert report.references[0].name == f"org/base@{base_commit}"
