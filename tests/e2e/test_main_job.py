"""The main job for real: POST an adapter to `loramend serve`, and load what comes back with peft."""

import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from loramend.contracts.report import Report
from tests.models import Trio, build_trio
from tests.serve import Served, serving

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return build_trio(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trio: Trio) -> Any:
    with serving(tmp_path_factory.mktemp("data"), model_roots=[trio.base.parent]) as served:
        yield served


def archive(folder: Path, top: str = "") -> bytes:
    """The folder as .tar.gz, its files under `top`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=top + path.name)
    return buffer.getvalue()


def submit(server: Served, adapter: Path, request: dict[str, Any], top: str = "") -> dict[str, Any]:
    """The job as it is when it has ended."""
    answer = httpx.post(
        f"{server.url}/repair",
        files={"adapter": ("adapter.tar.gz", archive(adapter, top)), "request": (None, json.dumps(request))},
        headers={"Prefer": "wait=60"},
        timeout=90,
    )
    assert answer.is_success, answer.text
    job: dict[str, Any] = httpx.get(f"{server.url}/jobs/{answer.json()['id']}").json()
    return job


def repaired(server: Served, trio: Trio, steps: list[dict[str, Any]]) -> tuple[dict[str, Any], Report]:
    request = {"base": {"path": str(trio.base)}, "aligned": {"path": str(trio.aligned)}, "steps": steps}
    job = submit(server, trio.adapter, request)
    assert job["status"] == "succeeded", job["error"]
    report = httpx.get(f"{server.url}/jobs/{job['id']}/report", headers={"Accept": "application/json"})
    return job, Report.model_validate_json(report.text)


STEPS = [
    [{"type": "csu", "k": 4}],
    [{"type": "csu", "k": 4, "attenuate": "outside", "sides": "both", "output_rank": "double"}],
    [{"type": "safe_lora"}],
    [{"type": "intruders"}],
    [{"type": "restore", "k": 2}],
    [{"type": "rescale", "layers": "all", "ratio": 0.5}, {"type": "shrink", "factor": 0.5}],
    [{"type": "random_subspace", "k": 4}],
]


NAMES = ["-".join(step["type"] for step in steps) for steps in STEPS]


@pytest.fixture(scope="module")
def reports(server: Served, trio: Trio) -> dict[str, Report]:
    """What was done to the adapter by each of STEPS, by the job's ID, in their order."""
    done = [repaired(server, trio, steps) for steps in STEPS]
    return {job["id"]: report for job, report in done}


@pytest.fixture(scope="module")
def loaded(
    server: Served, trio: Trio, reports: dict[str, Report], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What peft makes of each, by the job's ID: through the Hub's protocol, with nothing set but HF_ENDPOINT,
    in a process of its own."""
    script = textwrap.dedent(
        f"""
        import json, torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        length = {{"min_new_tokens": 5, "max_new_tokens": 5}}
        said = {{}}
        for job in {list(reports)!r}:
            base = AutoModelForCausalLM.from_pretrained({str(trio.base)!r})
            model = PeftModel.from_pretrained(base, f"repaired/{{job}}").eval()
            tokens = model.generate(input_ids=torch.tensor([[1, 2, 3]]), do_sample=False, **length)
            norms = {{
                name.removeprefix("base_model.model."): module.get_delta_weight("default").norm().item()
                for name, module in model.named_modules() if hasattr(module, "get_delta_weight")
            }}
            said[job] = {{"tokens": tokens.tolist(), "norms": norms}}
        print(json.dumps(said))
        """
    )
    home = tmp_path_factory.mktemp("home")
    env = os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("index", range(len(STEPS)), ids=lambda index: NAMES[index])
def test_peft_loads_the_repaired_adapter_and_its_deltas_are_the_reports(
    reports: dict[str, Report], loaded: dict[str, Any], index: int
) -> None:
    job, report = list(reports.items())[index]
    said = loaded[job]
    assert len(said["tokens"][0]) == 8
    after = {module.name: module.after.norm for module in report.modules if module.after}
    assert said["norms"] == pytest.approx(after, rel=1e-5)


def test_a_downloaded_archive_loads_from_disk(server: Served, trio: Trio, tmp_path: Path) -> None:
    job, _ = repaired(server, trio, [{"type": "shrink", "factor": 0.25}])
    command = [sys.executable, "-m", "loramend.cli.main", "pull", f"{server.url}/jobs/{job['id']}"]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trio.base), tmp_path / "out")
    before = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trio.base), trio.adapter)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    repaired_delta = model.get_submodule(name).get_delta_weight("default")
    torch.testing.assert_close(repaired_delta, 0.25 * before.get_submodule(name).get_delta_weight("default"))


def test_an_archive_with_a_folder_at_its_top(server: Served, trio: Trio) -> None:
    job = submit(server, trio.adapter, {"steps": [{"type": "shrink"}]}, top="my-adapter/")
    assert job["status"] == "succeeded", job["error"]
    files = httpx.get(f"{server.url}/api/models/repaired/{job['id']}/tree/main?recursive=true").json()
    paths = {file["path"] for file in files if file["type"] == "file"}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= paths
    assert {"report.json", "report.html", "report.sarif"} <= paths
    assert "original/adapter_model.safetensors" in paths


def test_a_base_of_another_shape_fails_the_job_by_name(server: Served, trio: Trio) -> None:
    job = submit(server, trio.adapter, {"base": {"path": str(trio.other)}, "steps": [{"type": "intruders"}]})
    assert job["status"] == "failed"
    assert job["error"]["code"] == "reference_mismatch"
    assert "self_attn" in job["error"]["detail"]


def test_base_equal_to_aligned_is_refused(server: Served, trio: Trio) -> None:
    same = {"path": str(trio.base)}
    job = submit(server, trio.adapter, {"base": same, "aligned": same, "steps": [{"type": "csu"}]})
    assert job["status"] == "failed"
    assert job["error"]["code"] == "reference_identical"
