"""The text of a job: fetched from the Hub, checked, kept in the storage, read."""

import hashlib

import pytest

from loramend.contracts.errors import DataError
from loramend.data.examples import Corpus, Example
from tests.hub.local import LocalHub
from tests.worker.working import retaken, working
from worker.data import fetch_data, read_corpus
from worker.settings import WorkerSettings

LABELLED = b'{"sentence": "a good film", "label": 1}\n{"sentence": "a bad film", "label": 0}\n'
PLAIN = b'{"text": "some sentence"}\n'
DATA = {
    "clean": {"hub_id": "org/films", "file": "train.jsonl", "fields": {"text": "sentence"}},
    "unlabelled": {"hub_id": "org/plain"},
}


@pytest.fixture
def commits(hub: LocalHub) -> dict[str, str]:
    return {
        "clean": hub.put("org/films", {"train.jsonl": LABELLED, "test.jsonl": PLAIN}, kind="datasets"),
        "unlabelled": hub.put("org/plain", {"all.jsonl": PLAIN}, kind="datasets"),
    }


def test_text_of_the_hub_is_stored_once_and_read_by_another_worker(
    io_settings: WorkerSettings, commits: dict[str, str], hub: LocalHub
) -> None:
    with working(io_settings, data=DATA, validation_share=0.3) as work:
        fetch_data(work)
        assert {role: file.name for role, file in work.record.data_files.items()} == {
            "clean": f"org/films@{commits['clean']}/train.jsonl",
            "unlabelled": f"org/plain@{commits['unlabelled']}/all.jsonl",
        }
        asked = len(hub.seen)
        fetch_data(work)
        assert len(hub.seen) == asked
        work.tools.store.release(work.lease)
    with retaken(io_settings, work.record.id) as work:
        corpus = read_corpus(work)
    assert corpus.validation_share == 0.3
    assert corpus.clean is not None
    assert corpus.clean.examples == (Example("a good film", 1), Example("a bad film", 0))
    assert corpus.clean.sha256 == hashlib.sha256(LABELLED).hexdigest()
    assert corpus.unlabelled is not None
    assert corpus.unlabelled.name == work.record.data_files["unlabelled"].name
    assert len(hub.seen) == asked


def test_bad_text_of_the_hub_is_refused_by_its_line(
    io_settings: WorkerSettings, commits: dict[str, str]
) -> None:
    wrong = {"clean": DATA["clean"] | {"file": "test.jsonl", "fields": {}}}
    with working(io_settings, data=wrong) as work, pytest.raises(DataError) as refused:
        fetch_data(work)
    assert (refused.value.code, refused.value.where) == ("data_invalid", "/clean")
    assert f"org/films@{commits['clean']}/test.jsonl:1" in refused.value.detail
    assert work.tools.store.held(work.lease).data_files == {}


def test_a_job_without_text_has_an_empty_corpus(io_settings: WorkerSettings) -> None:
    with working(io_settings) as work:
        assert read_corpus(work) == Corpus()
