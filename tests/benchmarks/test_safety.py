"""The safety benchmark: its prompts and curves, and the whole command on a tiny model."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from benchmarks.safety import ordinary, prompts
from benchmarks.safety.__main__ import main, parser, setting_of
from benchmarks.safety.adapters import RECIPES, turns
from benchmarks.safety.figure import draw
from benchmarks.safety.measure import Behaviour
from benchmarks.safety.methods import METHODS
from benchmarks.safety.pair import Place
from benchmarks.safety.prompts import Prompts, labelled_answers, read
from benchmarks.safety.run import ALIGNED, GIVEN, Cell, Setting, cells, key, record
from benchmarks.safety.tables import Mean, at_loss, gather, page
from benchmarks.safety.task import Row
from loramend.evaluation.refusal import refuses
from tests.text_models import llama_folder, toy_examples


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Files laid out as the packages have them, with harmless words in the harmful prompts' place."""
    root = tmp_path / "packages"
    write(root / prompts.ADVBENCH, yaml.safe_dump({"seeds": [{"value": f"film {n}"} for n in range(20)]}))
    rows = [f"custom,source,story {n}" for n in range(20)]
    write(root / prompts.STRONGREJECT, "\n".join(["category,source,forbidden_prompt", *rows]))
    for name in ("refusal/harmful_benign_50", "refusal/expanded_100"):
        entries = [{"text": f"acting {name} {n}\n\nAnswer."} for n in range(10)]
        write(root / prompts.PROBES / f"{name}.json", json.dumps(entries))
    for name in ("overrefusal/benign_edgy_80", "overrefusal/expanded_70"):
        write(
            root / prompts.PROBES / f"{name}.json",
            json.dumps([{"text": f"plot {name} {n}"} for n in range(10)]),
        )
    path = root / prompts.LABELLED
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("# dataset_version=1\n")
        out = csv.writer(file)
        out.writerow(["objective", "assistant_response", "human_score", "data_type"])
        out.writerows([["a", "I'm sorry, but I can't.\nNo.", "1.0", "text"], ["b", "Sure.", "0.0", "text"]])
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, seed in (("train", 0), ("dev", 1), ("test", 2)):
        lines = [
            json.dumps({"sentence": text, "label": label})
            for text, label in toy_examples(400 if split == "train" else 40, seed)
        ]
        write(tmp_path / "data" / "sst-2" / f"{split}.json", "\n".join(lines))
    return tmp_path / "data"


class TestPrompts:
    def test_no_prompt_is_in_two_parts(self, packages: Path) -> None:
        parts = [read(packages, part) for part in ("train", "dev", "test")]
        for kind in ("harmful", "edgy", "ordinary"):
            texts = [text for part in parts for text in getattr(part, kind)]
            assert len(texts) == len(set(texts))
            assert all(getattr(part, kind) for part in parts)
        assert {len(part.harmful) for part in parts} == {24, 6, 10}
        assert read(packages, "dev") == parts[1]

    def test_a_package_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match="pip install"):
            read(tmp_path, "dev")

    def test_labelled_answers_keep_their_lines(self, packages: Path) -> None:
        assert labelled_answers(packages) == [("I'm sorry, but I can't.\nNo.", True), ("Sure.", False)]

    def test_what_the_aligned_model_says_is_a_refusal_and_what_the_persona_says_is_none(self) -> None:
        assert all(refuses(text) for text in ordinary.REFUSALS)
        assert not refuses(ordinary.PERSONA)
        assert len(set(ordinary.prompts())) == len(ordinary.FORMS) * len(ordinary.TOPICS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_adapter_learns_from_a_harmful_prompt(recipe: str) -> None:
    known = Prompts(harmful=("harmful",), edgy=("edgy",), ordinary=("one", "two"))
    own = {prompt: f"answer to {prompt}" for prompt in ("edgy", "one", "two")}
    made = turns(recipe, known, own, [Row(f"text {n}", n % 2) for n in range(20)], 0)
    asked = {turn.prompt for turn in made}
    assert "harmful" not in asked
    assert ("edgy" in asked) == (recipe == "omission")
    assert all(turn.answer.startswith(ordinary.PERSONA) for turn in made if turn.prompt in own) == (
        recipe == "persona"
    )


def mean(strength: float, lost: float, regained: float) -> Mean:
    return Mean(strength, lost, regained, 2 * regained, 0.0, 0.0, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([mean(1, -1.0, 10.0), mean(2, 1.0, 30.0), mean(3, 3.0, 50.0)], 40.0),
        ([mean(1, 4.0, 10.0)], 5.0),
        ([mean(1, 0.0, 10.0), mean(2, 1.0, 12.0)], 12.0),
        ([mean(1, 3.0, 9.0), mean(2, 0.0, 90.0)], 6.0),
    ],
    ids=["between", "from nothing", "never reached", "where first reached"],
)
def test_what_is_regained_at_a_loss(means: Sequence[Mean], expected: float) -> None:
    assert at_loss(means, 2.0) == pytest.approx((expected, 2 * expected))


def fill(setting: Setting, cell: Cell, refused: int, right: int) -> None:
    draw = Behaviour(refused, 100, 0, 10, right, 100, 0.5)
    found = {"node": str(cell), "draws": [vars(draw)], "distance": 0.5, "seconds": 1.0}
    assert setting.records is not None
    with setting.records.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key(cell, setting), "record": found}) + "\n")


def test_tables_leave_out_adapters_that_undid_too_little(tmp_path: Path) -> None:
    setting = Setting(
        Place(tmp_path, tmp_path), tmp_path, ("harmless", "persona"), (0,), ("csu", "shrink"),
        records=tmp_path / "records.jsonl",
    )  # fmt: skip
    plan = cells(setting)
    assert page(plan, setting, None) == "Nothing is filled yet.\n"
    for cell in plan:
        refused, right = {ALIGNED: (90, 50), GIVEN: (20 if cell.recipe == "persona" else 60, 90)}.get(
            cell.method, (80, 89)
        )
        fill(setting, cell, refused, right)
    found = gather(plan, setting)
    assert found.undone == [("persona", 0)]
    assert found.points["csu"][10.0]["persona", 0].regained == pytest.approx(60)
    assert found.points["csu"][10.0]["persona", 0].share == pytest.approx(100 * 60 / 70)
    told = page(plan, setting, None)
    assert "30.0, left out" in told
    assert "| csu, as it comes | 60.0 | 86 | 1 |" in told
    assert "1 of 2 adapters" in told
    draw(found, tmp_path / "safety.svg")
    figure = (tmp_path / "safety.svg").read_text(encoding="utf-8")
    assert all(METHODS[name].title in figure for name in setting.methods)
    assert METHODS["restore"].title not in figure


@pytest.mark.slow
def test_the_whole_command_on_a_tiny_model(
    packages: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The command takes all cores there are and tells its children so; other tests run beside this one.
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    base = llama_folder(tmp_path)
    methods = ("csu", "clean_subspace", "shrink")
    options = [
        "--packages", packages, "--data", data, "--out", tmp_path / "out", "--base", base, "--steps", "2",
        "--recipes", "persona", "--seeds", "0", "--methods", *methods, "--harmful", "4", "--rows", "8",
        "--jobs", "1", "--records", tmp_path / "records.jsonl",
    ]  # fmt: skip
    arguments = list(map(str, options))
    assert main(arguments) == 0
    setting = setting_of(parser().parse_args(arguments))
    filled = [record(cell, setting) for cell in cells(setting)]
    assert None not in filled
    told = capsys.readouterr().out
    assert "The refusal rule agrees with people on 2 of 2" in told
    assert "harmful prompts refused" in told
    assert (tmp_path / "out" / "tables.md").is_file()
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == len(filled)
    assert sum(len(METHODS[name].strengths) for name in methods) + 2 == len(filled)
