"""Which models a job measures against."""

from pathlib import Path
from typing import Any

import pytest

from loramend.contracts.errors import LoramendError
from service.jobs.records import FetchedModel
from tests.service.jobs.jobs import new_record
from worker.models import steps_of, wanted_models
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
    assert wanted(settings, config, kind="inspect", steps=None) == {}
    local = str(tmp_path / "root" / "model")
    assert wanted(settings, {"base_model_name_or_path": local}, steps=None) == {"base": local}


@pytest.mark.parametrize("name", ["/etc", "../up", "~/models/x", "a/b/c", "", None, 7, "bad name", "x" * 300])
def test_a_base_that_may_not_be_fetched_is_none(settings: WorkerSettings, name: object) -> None:
    config = {"base_model_name_or_path": name}
    assert wanted(settings, config, steps=None) == {}
    with pytest.raises(LoramendError) as refused:
        wanted(settings, config, steps=CSU)
    assert refused.value.code == "reference_required"


def test_the_default_recipe_goes_by_the_models_at_hand() -> None:
    model = FetchedModel(name="org/model", path="/somewhere")
    both = new_record(references={"base": model, "aligned": model})
    assert [step.type for step in steps_of(both)] == ["csu"]
    assert [step.type for step in steps_of(new_record(references={"base": model}))] == ["intruders"]
    with pytest.raises(LoramendError) as refused:
        steps_of(new_record())
    assert refused.value.code == "no_default_recipe"
    assert [step.type for step in steps_of(new_record(steps=SHRINK))] == ["shrink"]
