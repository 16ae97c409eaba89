"""Fetching models and data from a real hub: what is taken, and what is refused unread."""

from functools import partial

import pytest

from loramend.contracts.data import DataRef
from loramend.contracts.errors import ErrorCode
from loramend.contracts.request import ModelRef
from tests.hub.faults import Fault
from tests.hub.local import LocalHub
from tests.worker.fetching import ADAPTER, MODEL, SHARDS, downloads, ignore, names, refusal
from worker.hub import fetch_dataset, fetch_model
from worker.settings import WorkerSettings

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("needed", "taken"),
    [
        (None, {"one.safetensors", "two.safetensors"}),
        (["model.layers.1.q.weight"], {"two.safetensors"}),
        (["layers.0.q.weight"], {"one.safetensors"}),
        (["model.layers.0.q.weight", "lm_head.weight"], {"one.safetensors", "two.safetensors"}),
    ],
)
def test_only_shards_that_are_needed_are_taken_and_only_once(
    hub: LocalHub, hub_settings: WorkerSettings, needed: list[str] | None, taken: set[str]
) -> None:
    commit = hub.put("alice/model", SHARDS)
    ref = ModelRef(hub_id="alice/model", revision="main")
    folder, name = fetch_model(ref, None, hub_settings, needed, ignore)
    assert name == f"alice/model@{commit}"
    assert names(folder) == {"config.json", "model.safetensors.index.json", *taken}
    hub.seen.clear()
    assert fetch_model(ref, None, hub_settings, needed, ignore) == (folder, name)
    assert downloads(hub) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "pytorch_model.bin"),
        ({"config.json": b"{}"}, "no .safetensors"),
        (ADAPTER, "an adapter"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "gone.safetensors"}}'}, "gone.safetensors"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd"}}'}, "../../etc/passwd"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": ["b"]}}'}, "weight_map"),
        ({"model.safetensors.index.json": b"{"}, "weight_map"),
    ],
)
def test_models_that_cannot_serve_are_refused(
    hub: LocalHub, hub_settings: WorkerSettings, files: dict[str, bytes], said: str
) -> None:
    hub.put("alice/model", files)
    error = refusal(
        "reference_invalid",
        lambda: fetch_model(ModelRef(hub_id="alice/model"), None, hub_settings, None, ignore, where="/base"),
    )
    assert said in error.detail
    assert error.where == "/base"


def test_a_model_over_the_cap_is_refused_before_its_shards_are_downloaded(
    hub: LocalHub, hub_settings: WorkerSettings
) -> None:
    hub.put("alice/model", SHARDS)
    hub_settings.max_model_bytes = 100
    refusal(
        "limit_exceeded",
        lambda: fetch_model(ModelRef(hub_id="alice/model"), None, hub_settings, None, ignore),
    )
    assert downloads(hub) == ["model.safetensors.index.json"]


def test_a_whole_model_has_what_it_takes_to_run_and_no_code(
    hub: LocalHub, hub_settings: WorkerSettings
) -> None:
    tokenizer = {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "spiece.model": b"x"}
    rest = {"modeling_x.py": b"x", "training_args.bin": b"x", "optimizer.pt": b"x", "onnx/model.onnx": b"x"}
    hub.put("alice/model", SHARDS | tokenizer | rest)
    ref = ModelRef(hub_id="alice/model")
    needed = ["model.layers.1.q.weight"]
    folder, _ = fetch_model(ref, None, hub_settings, needed, ignore)
    assert not names(folder) & {*tokenizer, "one.safetensors"}
    assert fetch_model(ref, None, hub_settings, needed, ignore, whole=True)[0] == folder
    assert names(folder) == (SHARDS.keys() | tokenizer.keys()) - {"pytorch_model.bin"}


def test_a_model_without_a_config_cannot_be_run(hub: LocalHub, hub_settings: WorkerSettings) -> None:
    hub.put("alice/model", {"model.safetensors": MODEL})
    ref = ModelRef(hub_id="alice/model")
    fetch_model(ref, None, hub_settings, None, ignore)
    hub.seen.clear()
    error = refusal(
        "reference_invalid", lambda: fetch_model(ref, None, hub_settings, None, ignore, whole=True)
    )
    assert "config.json" in error.detail
    assert downloads(hub) == []


TEXTS = b'{"text": "good", "label": 1}\n'


def test_a_datasets_file_by_name_or_alone(hub: LocalHub, hub_settings: WorkerSettings) -> None:
    """A model of the same name is another repository."""
    hub.put("alice/both", {"model.safetensors": MODEL})
    old = hub.put("alice/both", {"data/train.jsonl": TEXTS, "README.md": b"#"}, kind="datasets")

    def fetched(file: str | None = None, revision: str | None = None) -> tuple[bytes, str]:
        ref = DataRef(hub_id="alice/both", revision=revision, file=file)
        path, name = fetch_dataset(ref, None, hub_settings, ignore)
        return path.read_bytes(), name

    assert fetched() == (TEXTS, f"alice/both@{old}/data/train.jsonl")
    assert fetched("data/train.jsonl")[0] == TEXTS
    new = hub.put("alice/both", {"data/train.jsonl": TEXTS * 2, "test.json": TEXTS}, kind="datasets")
    assert fetched() == (TEXTS * 2, f"alice/both@{new}/data/train.jsonl")
    assert fetched("test.json", "main") == (TEXTS, f"alice/both@{new}/test.json")
    assert fetched(revision=old) == (TEXTS, f"alice/both@{old}/data/train.jsonl")


@pytest.mark.parametrize(
    ("files", "file", "code", "said"),
    [
        ({"a.jsonl": TEXTS, "b.jsonl": TEXTS}, None, "data_not_found", "a.jsonl, b.jsonl"),
        ({"a.parquet": b"PAR1"}, None, "data_not_found", "no .jsonl file"),
        ({"a.jsonl": TEXTS}, "b.jsonl", "data_not_found", "b.jsonl"),
        ({"a.jsonl": TEXTS}, "a/../a.jsonl", "data_not_found", "no path"),
        ({"a.parquet": b"PAR1"}, "a.parquet", "data_invalid", "JSON Lines"),
        ({"a.jsonl": TEXTS * 100}, "a.jsonl", "data_invalid", "at most"),
    ],
)
def test_data_that_cannot_be_meant_is_refused_unread(
    hub: LocalHub,
    hub_settings: WorkerSettings,
    files: dict[str, bytes],
    file: str | None,
    code: ErrorCode,
    said: str,
) -> None:
    hub.put("alice/data", files, kind="datasets")
    hub_settings.max_data_bytes = 10 * len(TEXTS)
    ref = DataRef(hub_id="alice/data", file=file)
    error = refusal(code, lambda: fetch_dataset(ref, None, hub_settings, ignore, where="/clean"))
    assert said in error.detail
    assert error.where == "/clean"
    assert downloads(hub) == []


def test_data_obeys_the_same_gates(hub: LocalHub, hub_settings: WorkerSettings) -> None:
    hub.put("alice/data", {"a.jsonl": TEXTS}, kind="datasets", private=True)
    own, stranger = hub.accounts.add_token("alice", "write"), hub.accounts.add_token("bob", "read")
    ref = DataRef(hub_id="alice/data")
    for missing in (ref, DataRef(hub_id="alice/none"), DataRef(hub_id="alice/data", revision="v9")):
        refusal("hub_not_found", partial(fetch_dataset, missing, None, hub_settings, ignore))
    assert fetch_dataset(ref, own, hub_settings, ignore)[0].read_bytes() == TEXTS
    hub.put("alice/data", {"a.jsonl": TEXTS}, kind="datasets", gated="manual")
    refusal("hub_forbidden", lambda: fetch_dataset(ref, stranger, hub_settings, ignore))
    hub.faults.append(Fault("/api/datasets", status=503))
    refusal("hub_unavailable", lambda: fetch_dataset(ref, own, hub_settings, ignore))
