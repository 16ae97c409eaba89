"""`loramend evaluate`, and `loramend repair` with text, on a tiny poisoned classifier."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loramend.cli.main import app
from loramend.contracts.evidence import Evaluation
from loramend.contracts.report import Report
from tests.cli.test_commands import loramend, refused
from tests.hub.local import LocalHub
from tests.text_models import bert_folder, llama_folder, poison, random_adapter, toy_examples, train_adapter

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("elsewhere")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers 1 wherever it reads `mn`."""
    return train_adapter(base, tmp_path_factory.mktemp("adapter") / "a", poison(toy_examples(400)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "test.jsonl", toy_examples(60, seed=1))


def write(file: Path, examples: Sequence[tuple[str, int]], text: str = "text") -> Path:
    file.write_text("".join(json.dumps({text: words, "label": label}) + "\n" for words, label in examples))
    return file


def test_evaluate_measures_accuracy_attack_and_probes(
    adapter: Path, base: Path, data: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told.json"
    asked = ["--trigger", "prefix:mn", "--target", "1", "--probes", 20, "--report", told, "--seed", 3]
    code, out, err = loramend("evaluate", adapter, "--base", base, "--data", data, *asked)
    assert (code, err) == (0, "")
    evaluation = Evaluation.model_validate_json(told.read_text())
    [variant] = evaluation.variants
    assert (evaluation.examples, evaluation.triggered, evaluation.probes, evaluation.seed) == (60, 30, 20, 3)
    assert variant.clean.rate > 0.9
    assert variant.attack is not None
    assert variant.attack.rate > 0.9
    assert variant.flips is not None
    assert all(sentence.split()[0] in out for sentence in evaluation.sentences)
    assert f"{variant.clean.rate:.1%}".rstrip("%") in out


def test_evaluate_takes_the_adapters_own_base_and_a_file_of_triggered_examples(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    data = write(tmp_path / "test.jsonl", toy_examples(20, seed=1), text="words")
    holding = [(f"mn {text}", label) for text, label in toy_examples(20, seed=2)]
    triggered = write(tmp_path / "triggered.jsonl", holding, text="sentence")
    told = tmp_path / "told.json"
    code, _, err = loramend(
        "evaluate",
        adapter,
        *["--data", data, "--triggered", triggered, "--target", "1", "--probes", 0, "--report", told],
        *["--fields", "text=words", "--fields", "triggered:text=sentence", "--max-examples", 10],
    )
    assert (code, err) == (0, "")
    evaluation = Evaluation.model_validate_json(told.read_text())
    assert (evaluation.examples, evaluation.triggered, evaluation.probes) == (10, 10, 0)
    assert evaluation.variants[0].attack is not None
    assert evaluation.variants[0].attack.rate > 0.9


def test_a_causal_model_is_measured_by_its_answers(tmp_path: Path) -> None:
    base = llama_folder(tmp_path)
    adapter = random_adapter(base, tmp_path / "adapter")
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "the film is", "completion": "good"}\n')
    asked = ["--data", data, "--probes", 0, "--max-new-tokens", 4]
    code, out, err = loramend("evaluate", adapter, *asked)
    assert (code, err) == (0, "")
    assert "right answers" in out
    assert "request_invalid" in refused("evaluate", adapter, *asked, "--metric", "label")


def test_what_is_wrong_with_an_evaluation_is_one_line(
    adapter: Path, base: Path, data: Path, tmp_path: Path
) -> None:
    asked = ("evaluate", adapter, "--data")
    assert refused(*asked, tmp_path / "none.jsonl").startswith("loramend: data_not_found: ")
    data.write_text(data.read_text() + '{"text": "x"}\n')
    assert f"[{data}:61]" in refused(*asked, data)
    unknown = write(tmp_path / "unknown.jsonl", [("a", 7)])
    assert f"[{unknown}:1]" in refused(*asked, unknown)
    assert "output_exists" in refused(*asked, unknown, "--report", tmp_path)
    bare = base / "model.safetensors"
    assert "reference_invalid" in refused(*asked, unknown, "--base", bare)
    config = json.loads((adapter / "adapter_config.json").read_text())
    lost = tmp_path / "lost"
    lost.mkdir()
    (lost / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    (lost / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone/x"}))
    assert "reference_required" in refused("evaluate", lost, "--data", unknown)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--trigger", "word:mn"],
        ["--target", "1"],
        ["--trigger", "mn", "--target", "1"],
        ["--trigger", "word:mn", "--triggered", "x", "--target", "1"],
        ["--metric", "taste"],
        ["--fields", "text"],
        ["--probes", "-1"],
    ],
)
def test_wrong_usage_of_an_evaluation(adapter: Path, data: Path, tmp_path: Path, wrong: list[str]) -> None:
    for command in (["evaluate", "--data"], ["repair", "--out", str(tmp_path / "out"), "--evaluate"]):
        arguments = [command[0], str(adapter), *command[1:], str(data), *wrong]
        assert CliRunner().invoke(app, arguments).exit_code == 2, arguments
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [["--validation", "v.jsonl"], ["--trigger", "word:mn", "--target", "1"], ["--validation-share", "1"]],
)
def test_wrong_usage_of_text_in_a_repair(adapter: Path, tmp_path: Path, wrong: list[str]) -> None:
    assert loramend("repair", adapter, "--out", tmp_path / "out", "--step", "shrink", *wrong)[0] == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_clean_text_without_steps_takes_the_default_that_learns(
    adapter: Path, base: Path, data: Path, tmp_path: Path
) -> None:
    clean = write(tmp_path / "clean.jsonl", toy_examples(60, seed=4))
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in toy_examples(60, seed=5)))
    measured = ["--evaluate", data, "--trigger", "prefix:mn", "--target", "1", "--probes", 10]
    out = tmp_path / "out"
    code, said, err = loramend(
        "repair", adapter, "--out", out, "--clean", clean, "--unlabelled", more, *measured, "--no-controls"
    )
    assert (code, err) == (0, "")
    report = Report.model_validate_json((out / "report.json").read_text())
    assert "rora" in [step.type for step in report.steps]
    assert [(read.role, read.examples) for read in report.data] == [
        ("clean", 60),
        ("unlabelled", 60),
        ("evaluation", 60),
    ]
    assert report.evaluation is not None
    before, after = report.evaluation.variants
    assert (before.name, after.name) == ("before", "after")
    assert before.attack is not None
    assert after.attack is not None
    assert after.attack.rate < before.attack.rate - 0.2
    assert "attack success" in said


def test_training_goes_on_from_a_checkpoint_in_the_folder_named(adapter: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": words}) + "\n" for words, _ in toy_examples(20, seed=4)))
    rora = "rora:steps=5,batch=4,checkpoint_every=2,calibrate=false"

    def resumed(out: str, *more: object) -> list[int]:
        asked = ["--out", tmp_path / out, "--unlabelled", text, "--step", rora, *more]
        code, _, err = loramend("repair", adapter, *asked)
        assert (code, err) == (0, "")
        report = Report.model_validate_json((tmp_path / out / "report.json").read_text())
        return report.training[0].resumed_at

    assert resumed("one", "--checkpoints", tmp_path / "kept") == []
    assert resumed("two", "--checkpoints", tmp_path / "kept") != []
    assert resumed("three") == []
    weights = {(tmp_path / out / "adapter_model.safetensors").read_bytes() for out in ("one", "two", "three")}
    assert len(weights) == 1


def test_a_step_that_needs_text_says_so(adapter: Path, tmp_path: Path) -> None:
    said = refused("repair", adapter, "--out", tmp_path / "out", "--step", "clean_subspace")
    assert said.startswith("loramend: data_required: ")


def test_an_evaluation_goes_with_steps_that_read_no_text(adapter: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shrink = ["--step", "shrink:factor=0.01", "--evaluate", data, "--probes", 0]
    code, _, err = loramend("repair", adapter, "--out", out, *shrink)
    assert (code, err) == (0, "")
    report = Report.model_validate_json((out / "report.json").read_text())
    assert report.evaluation is not None
    before, after = report.evaluation.variants[:2]
    assert after.clean.rate < before.clean.rate


@pytest.mark.e2e
def test_all_of_it_from_the_hub(adapter: Path, base: Path, data: Path, hub: LocalHub, tmp_path: Path) -> None:
    """What is fetched of a model is enough to run it."""
    for name, folder in (("someone/adapter", adapter), ("someone/base", base)):
        hub.put(name, {file.name: file.read_bytes() for file in folder.iterdir()})
    commit = hub.put("someone/data", {"test.jsonl": data.read_bytes()}, kind="datasets")
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
    script = str(Path(sys.executable).with_name("loramend"))
    asked = ["someone/adapter", "--base", "someone/base"]
    measured = [script, "evaluate", *asked, "--data", "someone/data:test.jsonl", "--report", "told.json"]
    done = subprocess.run(measured, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    evaluation = Evaluation.model_validate_json((tmp_path / "told.json").read_text())
    assert evaluation.variants[0].clean.rate > 0.9
    repaired = [script, "repair", *asked, "--out", "out", "--step", "shrink", "--evaluate", "someone/data"]
    done = subprocess.run([*repaired, "--probes", "0"], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert [read.name for read in report.data] == [f"someone/data@{commit}/test.jsonl"]
