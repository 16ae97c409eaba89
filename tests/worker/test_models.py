"""Which models a job measures against."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.limits import Limits
from loramend.contracts.errors import LoramendError
from loramend.contracts.request import ModelRef
from service.jobs.intake import take_folder
from service.jobs.records import FetchedModel
from tests.hub.local import LocalHub
from tests.service.jobs.jobs import new_record
from tests.worker.working import working
from worker.models import download_models, settle_models, steps_of, wanted_models
from worker.settings import WorkerSettings


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    (tmp_path / "root" / "model").mkdir(parents=True)
    return WorkerSettings(model_roots=(tmp_path / "root",))


def wanted(settings: WorkerSettings, config: dict[str, Any], **fields: Any) -> dict[str, str]:
    models = wanted_models(new_record(**fields), config, settings)
    return {role: str(ref) for role, ref in models.items()}


CSU, SHRINK = [{"type": "csu"}], [{"type": "shrink"}]


def test_the_requests_models_come_first(settings: WorkerSettings) -> None:
    config = {"base_model_name_or_path": "org/own"}
    given = {"base": {"hub_id": "org/base"}, "aligned": {"hub_id": "org/aligned", "revision": "v1"}}
    assert wanted(settings, config, steps=CSU, **given) == {
        "base": "org/base",
        "aligned": "org/aligned@v1",
    }
    assert wanted(settings, config, steps=SHRINK, **given).keys() == {"base", "aligned"}


def test_the_adapters_own_base_serves_where_one_is_needed(settings: WorkerSettings, tmp_path: Path) -> None:
    config = {"base_model_name_or_path": "org/own", "revision": "abc"}
    assert wanted(settings, config, steps=CSU) == {"base": "org/own@abc"}
    assert wanted(settings, config, steps=None) == {"base": "org/own@abc"}
    assert wanted(settings, config, steps=SHRINK) == {}
    assert wanted(settings, config, steps=SHRINK, evaluation={}) == {"base": "org/own@abc"}
    assert wanted(settings, config, kind="inspect", steps=None) == {}
    local = str(tmp_path / "root" / "model")
    assert wanted(settings, {"base_model_name_or_path": local}, steps=None) == {"base": local}


@pytest.mark.parametrize("name", ["/etc", "../up", "~/models/x", "a/b/c", "", None, 7, "bad name", "x" * 300])
def test_a_base_that_may_not_be_fetched_is_none(settings: WorkerSettings, name: object) -> None:
    config = {"base_model_name_or_path": name}
    assert wanted(settings, config, steps=None) == {}
    for asking in ({"steps": CSU}, {"steps": SHRINK, "evaluation": {}}):
        with pytest.raises(LoramendError) as refused:
            wanted(settings, config, **asking)
        assert refused.value.code == "reference_required"


def test_the_default_recipe_goes_by_the_models_at_hand() -> None:
    model = FetchedModel(name="org/model", path="/somewhere")
    both = new_record(references={"base": model, "aligned": model})
    assert [step.type for step in steps_of(both)] == ["csu"]
    assert [step.type for step in steps_of(new_record(references={"base": model}))] == ["intruders"]
    text = new_record(references={"base": model}, data={"unlabelled": {"upload": "0" * 64}})
    assert [step.type for step in steps_of(text)] == ["clean_subspace", "rora"]
    with pytest.raises(LoramendError) as refused:
        steps_of(new_record())
    assert refused.value.code == "no_default_recipe"
    assert [step.type for step in steps_of(new_record(steps=SHRINK))] == ["shrink"]


RUN_FILES = {
    "config.json",
    "tokenizer.json",
    "model.safetensors.index.json",
    "one.safetensors",
    "two.safetensors",
}


@pytest.fixture
def sharded(hub: LocalHub) -> str:
    """A base of two shards with its tokenizer, and code that nobody may fetch; returns its commit."""
    weights = {name: np.zeros((32, 32), np.float32) for name in ("0.self_attn.q_proj", "1.mlp.up_proj")}
    shards = {
        "one.safetensors": {"model.layers.0.self_attn.q_proj.weight": weights["0.self_attn.q_proj"]},
        "two.safetensors": {"model.layers.1.mlp.up_proj.weight": weights["1.mlp.up_proj"]},
    }
    index = {"weight_map": {tensor: shard for shard, tensors in shards.items() for tensor in tensors}}
    return hub.put(
        "org/base",
        {name: save(tensors) for name, tensors in shards.items()}
        | {"model.safetensors.index.json": json.dumps(index).encode()}
        | {"config.json": b"{}", "tokenizer.json": b"{}", "modeling.py": b"raise SystemExit"},
    )


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", modules=1, base="org/base")


@pytest.mark.parametrize(
    ("fields", "files"),
    [
        ({"steps": [{"type": "intruders"}]}, RUN_FILES - {"tokenizer.json", "two.safetensors"}),
        ({"steps": [{"type": "rora"}]}, RUN_FILES),
        ({"steps": SHRINK, "evaluation": {}}, RUN_FILES),
    ],
)
def test_a_base_that_is_run_is_fetched_whole(
    io_settings: WorkerSettings, sharded: str, adapter: Path, fields: dict[str, Any], files: set[str]
) -> None:
    with working(io_settings, base={"hub_id": "org/base"}, **fields) as work:
        models = download_models(work, {"base": ModelRef(hub_id="org/base")}, adapter)
    assert (models["base"].revision, set(models["base"].files)) == (sharded, files)


def test_a_base_of_which_this_machine_has_only_a_part_is_fetched_here(
    io_settings: WorkerSettings, sharded: str, adapter: Path, tmp_path: Path
) -> None:
    """As another job may have left it in the cache."""
    (tmp_path / "part").mkdir()
    model = {"hub_id": "org/base", "revision": sharded, "name": f"org/base@{sharded}"}
    model |= {"path": str(tmp_path / "part"), "files": ["config.json"]}
    fields = {"base": {"hub_id": "org/base"}, "references": {"base": model}, "steps": [{"type": "rora"}]}
    with working(io_settings, **fields) as work:
        stored = take_folder(
            adapter,
            job_id=work.record.id,
            storage=work.tools.storage,
            store=work.tools.store,
            limits=Limits(),
        )
        work.update(input=stored)
        assert settle_models(work)
        fetched = work.record.references["base"]
        assert set(fetched.files) == RUN_FILES
        assert fetched.path is not None
        assert Path(fetched.path) != tmp_path / "part"
        assert settle_models(work)
        assert work.record.references["base"] == fetched
