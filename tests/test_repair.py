"""The pipeline: steps in order, a report with the written adapter's numbers, refusals before any reading."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from loramend.adapter.read import read_adapter
from loramend.contracts.errors import JobError, LoramendError
from loramend.contracts.job import Progress
from loramend.contracts.report import Report
from loramend.contracts.steps import STEPS, Step
from loramend.reference.open import open_references
from loramend.repair import inspect, repair
from loramend.result import write_result
from tests.models import Trio, build_trio


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return build_trio(tmp_path_factory.mktemp("models"))


def steps(*given: dict[str, object]) -> list[Step]:
    return [STEPS.validate_python(step) for step in given]


def test_inspect_measures_without_references(trio: Trio) -> None:
    adapter = read_adapter(trio.adapter)
    report = inspect(adapter)
    assert report.kind == "inspect"
    assert [module.name for module in report.modules] == list(adapter.updates)
    assert all(module.after is None and module.base_before is None for module in report.modules)
    delta = adapter.updates[report.modules[0].name]
    dense = torch.linalg.svdvals((delta.scale * delta.B @ delta.A).double())[: delta.rank]
    assert report.modules[0].before.sigma == pytest.approx(dense.tolist(), rel=1e-6)


def test_the_reports_numbers_are_those_of_the_written_adapter(trio: Trio, tmp_path: Path) -> None:
    with open_references(trio.base, trio.aligned) as references:
        repaired, report = repair(
            read_adapter(trio.adapter),
            steps({"type": "csu", "k": 4}, {"type": "shrink", "factor": 0.5}),
            references,
        )
    write_result(repaired, report, trio.adapter, tmp_path / "out")
    again = inspect(read_adapter(tmp_path / "out"))
    for written, told in zip(again.modules, report.modules, strict=True):
        assert told.after is not None
        assert written.before.sigma == pytest.approx(told.after.sigma, rel=1e-6, abs=1e-9)
        assert [step.type for step in told.steps] == ["csu", "shrink"]
        assert told.energy_before is not None
        assert told.energy_before.full + told.energy_before.partial + told.energy_before.off == pytest.approx(
            1
        )
    assert [comparison.type for comparison in report.placebo] == ["csu"]
    assert {read.role for read in report.references} == {"base", "aligned"}
    stored = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert {file.path for file in stored.output} == {"adapter_model.safetensors", "adapter_config.json"}
    assert (tmp_path / "out" / "original" / "adapter_model.safetensors").is_file()


def test_the_same_seed_gives_the_same_bytes(trio: Trio, tmp_path: Path) -> None:
    for name in ("one", "two"):
        repaired, report = repair(
            read_adapter(trio.adapter), steps({"type": "random_subspace", "k": 4}), seed=7
        )
        write_result(repaired, report, trio.adapter, tmp_path / name)
    one, two = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_missing_reference_is_refused_by_name(trio: Trio) -> None:
    with pytest.raises(LoramendError, match="csu needs the base model") as caught:
        repair(read_adapter(trio.adapter), steps({"type": "csu"}))
    assert caught.value.code == "reference_required"


def test_a_model_of_another_shape_is_refused(trio: Trio) -> None:
    with (
        open_references(trio.other, None) as references,
        pytest.raises(LoramendError, match="self_attn") as caught,
    ):
        repair(read_adapter(trio.adapter), steps({"type": "intruders"}), references)
    assert caught.value.code == "reference_mismatch"


def test_base_as_aligned_is_refused(trio: Trio) -> None:
    with open_references(trio.base, trio.base) as references, pytest.raises(LoramendError) as caught:
        repair(read_adapter(trio.adapter), steps({"type": "csu"}), references)
    assert caught.value.code == "reference_identical"


def test_replicated_layers_are_not_measured_against_a_model(trio: Trio, tmp_path: Path) -> None:
    """Layer 1 of such an adapter may be a copy of the base model's layer 0."""
    shutil.copytree(trio.adapter, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(config.read_text()) | {"layer_replication": [[0, 1], [0, 1]]}
    config.write_text(json.dumps(settings))
    adapter = read_adapter(tmp_path / "adapter")
    with open_references(trio.base, None) as references:
        for work in (
            lambda: inspect(adapter, references),
            lambda: repair(adapter, steps({"type": "shrink"}), references),
        ):
            with pytest.raises(LoramendError, match="Leave out `base`") as caught:
                work()
            assert caught.value.code == "config_unsupported"
    assert inspect(adapter).totals.modules == 4


def test_progress_reaches_its_total_and_can_stop_the_work(trio: Trio) -> None:
    seen: list[Progress] = []
    with open_references(trio.base, trio.aligned) as references:
        repair(
            read_adapter(trio.adapter), steps({"type": "csu", "k": 4}), references, on_progress=seen.append
        )
    last = {progress.phase: progress for progress in seen}
    assert set(last) == {"measure", "repair", "controls"}
    assert all(progress.done == progress.total for progress in last.values())

    def stop(progress: Progress) -> None:
        if progress.phase == "repair":
            raise JobError("canceled", "stopped")

    with pytest.raises(JobError):
        repair(read_adapter(trio.adapter), steps({"type": "shrink"}), on_progress=stop)
