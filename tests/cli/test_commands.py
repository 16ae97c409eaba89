"""`loramend inspect` and `loramend repair` on real small adapters and models."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.archive import pack
from loramend.adapter.read import read_adapter
from loramend.cli.main import app
from loramend.contracts.report import Report
from tests.cli.test_supervisor import eventually
from tests.hub.local import LocalHub
from tests.terminal import on_terminal

pytestmark = pytest.mark.usefixtures("elsewhere")

MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter")


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """A base and an aligned model with the adapter's target weights."""
    random = torch.Generator().manual_seed(0)
    weights = {f"{name}.weight": torch.randn(32, 32, generator=random) for name in MODULES}
    moved = {
        name: weight + torch.randn(32, 4, generator=random) @ torch.randn(4, 32, generator=random)
        for name, weight in weights.items()
    }
    for folder, tensors in (("base", weights), ("aligned", moved)):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors")
        (tmp_path / folder / "config.json").write_text("{}")
    return tmp_path / "base", tmp_path / "aligned"


def loramend(*arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr), in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def refused(*arguments: object) -> str:
    """The one line of a command that fails with exit code 1."""
    code, out, err = loramend(*arguments)
    assert code == 1, (code, out, err)
    assert out == ""
    assert re.fullmatch(r"loramend: [a-z_]+: [^\n]+\n", err), err
    return err


def zipped(adapter: Path) -> Path:
    folder = adapter.parent / "outer"
    shutil.copytree(adapter, folder / "inner")
    pack(folder, adapter.parent / "adapter.zip")
    return adapter.parent / "adapter.zip"


def tarred(adapter: Path) -> Path:
    pack(adapter, adapter.parent / "adapter.tar.gz")
    return adapter.parent / "adapter.tar.gz"


def single_file(adapter: Path) -> Path:
    return (adapter / "adapter_model.safetensors").rename(adapter / "renamed.safetensors")


FORMS: list[Callable[[Path], Path]] = [lambda adapter: adapter, zipped, tarred, single_file]


@pytest.mark.parametrize("form", FORMS, ids=["folder", "zip with a folder", "tar.gz", "file"])
def test_an_adapter_comes_in_any_of_its_forms(
    adapter: Path, form: Callable[[Path], Path], tmp_path: Path
) -> None:
    place = form(adapter)
    code, out, err = loramend("inspect", place, "--json")
    assert (code, err) == (0, "")
    report = Report.model_validate_json(out)
    assert (report.kind, report.adapter.name) == ("inspect", str(place))
    assert [module.name for module in report.modules] == MODULES
    assert report.provenance.source == {"path": str(place)}
    assert loramend("repair", place, "--out", tmp_path / "out", "--step", "shrink")[0] == 0
    kept = {file.name: file.stat().st_size for file in (tmp_path / "out" / "original").iterdir()}
    assert kept == {file.path: file.size for file in report.adapter.files}


def test_inspect_shows_a_row_a_module(adapter: Path, models: tuple[Path, Path]) -> None:
    code, out, _ = loramend("inspect", adapter)
    assert code == 0
    assert all(word in out for word in ("model.layers.…", "0.self_attn.q_proj", "1.self_attn.q_proj"))
    assert "alignment" not in out
    code, out, _ = loramend("inspect", adapter, "--base", models[0], "--aligned", models[1])
    assert code == 0
    assert all(word in out for word in ("strength", "alignment", "full", "partial", "off"))


def test_repair_writes_adapter_report_card_and_original(
    adapter: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    out, told = tmp_path / "out", tmp_path / "told.json"
    given = ["--base", models[0], "--aligned", models[1], "--report", told, "--seed", 7]
    code, said, err = loramend("repair", adapter, "--out", out, *given)
    assert (code, err) == (0, "")
    report = Report.model_validate_json((out / "report.json").read_text())
    assert told.read_text() == (out / "report.json").read_text()
    assert [step.type for step in report.steps] == ["csu"], "the default where both models are given"
    assert report.provenance.seed == 7
    told = loramend("repair", adapter, "--out", tmp_path / "again", *given, "--json")
    assert Report.model_validate_json(told[1]).modules == report.modules
    for module in report.modules:
        assert module.after is not None
        assert f"{module.before.norm:.3g} → {module.after.norm:.3g}" in said
    repaired = read_adapter(out)
    norms = {
        name: float(u.scale * torch.linalg.matrix_norm(u.B @ u.A)) for name, u in repaired.updates.items()
    }
    assert norms == pytest.approx({m.name: m.after.norm for m in report.modules if m.after}, rel=1e-5)
    original = load_file(out / "original" / "adapter_model.safetensors")
    assert original.keys() == load_file(adapter / "adapter_model.safetensors").keys()


@pytest.mark.parametrize(
    ("name", "form"),
    [("told.html", "html"), ("TOLD.HTML", "html"), ("told.sarif", "sarif"), ("told", "json")],
)
def test_the_reports_name_says_its_form(adapter: Path, tmp_path: Path, name: str, form: str) -> None:
    out = tmp_path / "out"
    assert loramend("repair", adapter, "--out", out, "--step", "shrink", "--report", tmp_path / name)[0] == 0
    assert (tmp_path / name).read_text() == (out / f"report.{form}").read_text()
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_an_inspections_report_is_written_too(adapter: Path, tmp_path: Path) -> None:
    for name, beginning in (("a.html", "<!doctype html>"), ("a.sarif", "{"), ("a.json", "{")):
        assert loramend("inspect", adapter, "--report", tmp_path / name)[0] == 0
        assert (tmp_path / name).read_text().startswith(beginning)
    assert Report.model_validate_json((tmp_path / "a.json").read_text()).kind == "inspect"
    assert "--report" in refused("inspect", adapter, "--report", tmp_path)


def test_steps_are_taken_in_order(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps = ["--step", "shrink:factor=0.5", "--step", "random_subspace:k=4,penalty=2"]
    assert loramend("repair", adapter, "--out", out, *steps, "--threat", "poisoned_base")[0] == 0
    report = Report.model_validate_json((out / "report.json").read_text())
    assert [step.model_dump()["type"] for step in report.steps] == ["shrink", "random_subspace"]
    assert report.threat == "poisoned_base"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--step", "scu"],
        ["--step", "shrink:factr=1"],
        ["--step", "shrink:factor=2"],
        ["--threat", "poisoned_well"],
        ["--seed", "-1"],
        ["--no-such-option"],
    ],
)
def test_wrong_usage_exits_with_two(adapter: Path, tmp_path: Path, arguments: list[str]) -> None:
    code, out, err = loramend("repair", adapter, "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_missing_argument_is_wrong_usage(adapter: Path) -> None:
    assert loramend("repair", adapter)[0] == 2
    assert loramend("inspect")[0] == 2
    assert loramend("mend")[0] == 2


def truncated(adapter: Path) -> Path:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    return adapter


def poisoned_by_nan(adapter: Path) -> Path:
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, adapter / "adapter_model.safetensors")
    return adapter


def pickled(adapter: Path) -> Path:
    torch.save({}, adapter / "adapter_model.bin")
    return adapter / "adapter_model.bin"


def loha(adapter: Path) -> Path:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LOHA"}))
    return adapter


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (truncated, "safetensors_invalid"),
        (poisoned_by_nan, "tensor_not_finite"),
        (pickled, "pickle_refused"),
        (loha, "peft_type_unsupported"),
        (lambda adapter: adapter / "nothing", "adapter_not_found"),
        (lambda adapter: Path("../nothing"), "adapter_not_found"),
        (lambda adapter: Path("a/b/c"), "adapter_not_found"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "repair"])
def test_a_bad_adapter_is_one_line_and_leaves_nothing(
    adapter: Path, tmp_path: Path, spoil: Callable[[Path], Path], code: str, command: str
) -> None:
    place = spoil(adapter)
    before = sorted(tmp_path.iterdir())
    more = ["--out", tmp_path / "out", "--step", "shrink"] if command == "repair" else []
    assert refused(command, place, *more).startswith(f"loramend: {code}: ")
    assert sorted(path for path in tmp_path.iterdir() if path.name != "cache") == before


def test_what_is_missing_or_contradicts_is_named(
    adapter: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, aligned = models
    repair = ("repair", adapter, "--out", tmp_path / "out")
    assert "no_default_recipe" in refused(*repair)
    assert "reference_required" in refused(*repair, "--step", "csu", "--base", base)
    assert "reference_not_found" in refused(*repair, "--base", tmp_path / "nothing")
    assert "reference_identical" in refused(*repair, "--base", base, "--aligned", base)
    wide = {f"{name}.weight": torch.zeros(32, 48) for name in MODULES}
    save_file(wide, aligned / "model.safetensors")
    assert "reference_mismatch" in refused(*repair, "--base", base, "--aligned", aligned)
    assert "device_unavailable" in refused(*repair, "--step", "shrink", "--device", "warp")
    assert "output_exists" in refused(
        *repair, "--step", "shrink", "--report", tmp_path / "no" / "report.json"
    )
    assert not (tmp_path / "out").exists()


def test_the_adapters_own_base_is_taken_where_one_is_needed(
    adapter: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    named = json.dumps(config | {"base_model_name_or_path": str(models[0])})
    (adapter / "adapter_config.json").write_text(named)
    code, out, _ = loramend("repair", adapter, "--out", tmp_path / "out")
    assert code == 0
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert [step.type for step in report.steps] == ["intruders"]
    assert f"of {models[0]}, the base model." in out
    assert loramend("repair", adapter, "--out", tmp_path / "other", "--step", "shrink")[0] == 0
    assert not Report.model_validate_json((tmp_path / "other" / "report.json").read_text()).references


def test_an_earlier_result_is_replaced_only_when_asked(adapter: Path, tmp_path: Path) -> None:
    repair = ("repair", adapter, "--out", tmp_path / "out", "--step")
    assert loramend(*repair, "shrink:factor=0.5")[0] == 0
    first = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert "--force" in refused(*repair, "shrink:factor=0.25")
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == first
    assert loramend(*repair, "shrink:factor=0.25", "--force")[0] == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() != first


def test_a_name_cannot_steer_the_terminal(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    evil = {name.replace("layers.0", "[red]\x1b[2Jx"): tensor for name, tensor in tensors.items()}
    save_file(evil, adapter / "adapter_model.safetensors")
    _, out, err = loramend("inspect", adapter)
    assert "\x1b" not in out + err


@pytest.mark.e2e
def test_the_console_script(adapter: Path) -> None:
    """Installed, in a process of its own: its output is the report and nothing else."""
    script = str(Path(sys.executable).with_name("loramend"))
    done = subprocess.run([script, "inspect", adapter, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["schema_version"] == "1.1"
    assert done.stderr == ""
    done = subprocess.run([script, "--debug", "inspect", "/no"], capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    adapter = make_adapter(tmp_path / "large", modules=800, size=256, rank=64)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    script = str(Path(sys.executable).with_name("loramend"))
    command = [
        script,
        "repair",
        str(adapter),
        "--out",
        str(tmp_path / "out"),
        "--step",
        "random_subspace:k=64",
    ]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    ) as process:
        eventually(lambda: any(tmp_path.glob(".out.*")), 30)
        time.sleep(0.5)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == "loramend: interrupted: stopped before it was done; nothing was written\n"
    assert not list(tmp_path.glob("*out*"))
    assert not list(temporary.iterdir())


@pytest.mark.e2e
def test_progress_is_drawn_on_a_terminal_alone(adapter: Path) -> None:
    script = Path(sys.executable).with_name("loramend")
    done = on_terminal([script, "inspect", adapter, "--json"], 60)
    assert done.code == 0
    assert "Measuring" in done.drawn
    assert json.loads(done.out)["kind"] == "inspect"


@pytest.mark.e2e
def test_hub_ids(adapter: Path, models: tuple[Path, Path], hub: LocalHub, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in adapter.iterdir()}
    commit = hub.put("someone/adapter", files)
    hub.put("someone/base", {file.name: file.read_bytes() for file in models[0].iterdir()})
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
    script = str(Path(sys.executable).with_name("loramend"))

    def inspected(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [script, "inspect", *arguments, "--json"]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    for name in ("someone/adapter", f"someone/adapter@{commit}"):
        done = inspected(name, "--base", "someone/base")
        assert done.returncode == 0, done.stderr
        report = Report.model_validate_json(done.stdout)
        assert report.provenance.source == {"hub_id": "someone/adapter", "revision": commit}
        assert report.modules[0].base_before is not None
        assert done.stderr == ""
    done = inspected("someone/adapter@nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"loramend: hub_not_found: [^\n]+\n", done.stderr)
