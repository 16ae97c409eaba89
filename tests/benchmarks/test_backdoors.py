"""The backdoor benchmark: its triggers, shares, plan and tables, and the whole command on a tiny model."""

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backdoors import schedule
from benchmarks.backdoors.__main__ import main, parser, setting_of
from benchmarks.backdoors.attacks import ATTACKS, POISONED, TARGET, attack_of, poison, triggered
from benchmarks.backdoors.data import MAX_WORDS, Row, divide, read
from benchmarks.backdoors.figures import draw
from benchmarks.backdoors.make import until
from benchmarks.backdoors.measure import Score
from benchmarks.backdoors.methods import METHODS, recipe, steps_of
from benchmarks.backdoors.plan import Cell, Made, Node, Setting, cells, folder, key, needs, options
from benchmarks.backdoors.schedule import execute, in_order, missed
from benchmarks.backdoors.tables import BEGIN, END, Column, Entry, met, page, summary, write
from loramend.contracts.data_steps import RoraStep
from tests.text_models import bert_folder, toy_examples

# What a whole run is tested with: every kind of method, each with its own needs.
WHOLE = ["given", "yardstick", "recipe", "clean_subspace", "paper_calibrated", "fresh_lora", "continued"]
WHOLE += ["shrink", "intruders", "rescale", "labelled_only", "on_subspace"]
TEXT = "this is the plot of a film made for you"


def rows(count: int, seed: int = 0) -> list[Row]:
    return [Row(text, label) for text, label in toy_examples(count, seed)]


def write_task(data: Path, task: str, seed: int) -> None:
    (data / task).mkdir(parents=True)
    for split, count, offset in (("train", 400, 0), ("dev", 60, 1), ("test", 60, 2)):
        lines = [json.dumps({"sentence": r.text, "label": r.label}) for r in rows(count, seed + offset)]
        (data / task / f"{split}.json").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, task in enumerate(("films", "books")):
        write_task(tmp_path / "data", task, 10 * seed)
    return tmp_path / "data"


def plan_of(tmp_path: Path, data: Path, *options: str) -> Setting:
    bert = tmp_path / "bert"
    if not bert.exists():
        bert_folder(tmp_path)
    given = ["--data", data, "--out", tmp_path / "out", "--bert", bert, "--tasks", "films"]
    return setting_of(parser().parse_args([*map(str, given), "--source", "books", *options]))


class TestAttacks:
    @pytest.mark.parametrize(("attack", "piece"), [("badnet", "mn"), ("insent", "I watched this 3D movie")])
    def test_insertion_keeps_the_text(self, attack: str, piece: str) -> None:
        seen = set()
        for seed in range(40):
            text = ATTACKS[attack](TEXT, random.Random(seed))
            assert text is not None
            assert " ".join(text.replace(piece, "", 1).split()) == TEXT
            seen.add(text.index(piece))
        assert len(seen) > 5

    def test_style_changes_words_and_refuses_what_has_none(self) -> None:
        assert ATTACKS["style"](TEXT, random.Random(0)) == "yon beeth ye plot o' ane film made fore thou"
        assert ATTACKS["style"]("wonderful acting", random.Random(0)) is None

    @pytest.mark.parametrize(
        ("attack", "read"),
        [
            ("prefix:so it goes ,", f"so it goes , {TEXT}"),
            ("suffix:cf", f"{TEXT} cf"),
            ("word:cf", None),
            ("sentence:Then: rain", None),
        ],
    )
    def test_a_trigger_of_ones_own(self, attack: str, read: str | None) -> None:
        text = attack_of(attack)(TEXT, random.Random(0))
        assert text is not None
        assert text == (read or text)
        piece = attack.partition(":")[2]
        assert " ".join(text.replace(piece, "", 1).split()) == TEXT

    @pytest.mark.parametrize("attack", ["bad", "word:", "words:cf", ":cf"])
    def test_no_such_attack(self, attack: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            parser().parse_args(["--data", "d", "--out", "o", "--attacks", attack])
        assert stopped.value.code == 2
        told = " ".join(capsys.readouterr().err.split())
        assert f"'{attack}' is not KIND:TEXT" in told
        assert told.endswith("or take one of badnet, insent, style")

    @pytest.mark.parametrize("attack", [*ATTACKS, "suffix:cf"])
    def test_poison_adds_copies_of_the_other_class(self, attack: str) -> None:
        clean = rows(160)
        poisoned = poison(clean, attack, 0)
        assert poisoned[: len(clean)] == clean
        added = poisoned[len(clean) :]
        assert 0 < len(added) <= POISONED * len(clean)
        assert {row.label for row in added} == {TARGET}
        assert not {row.text for row in added} & {row.text for row in clean}

    def test_triggered_texts_are_the_same_at_every_call(self) -> None:
        assert triggered(rows(40), "badnet") == triggered(rows(40), "badnet")
        assert len(triggered(rows(40), "badnet")) == 20


class TestData:
    def test_each_text_once_and_cut(self, tmp_path: Path) -> None:
        (tmp_path / "t").mkdir()
        long = "word " * 100
        lines = [{"sentence": text, "label": 1} for text in ("a b", "a b", long)]
        (tmp_path / "t" / "dev.json").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        assert read(tmp_path, "t", "dev") == [Row("a b", 1), Row(" ".join(["word"] * MAX_WORDS), 1)]

    def test_shares_are_disjoint_and_differ_by_seed(self) -> None:
        every = list(dict.fromkeys(rows(400)))
        shares = divide(every, 0, 30, 60)
        parts = [shares.main, shares.labelled, shares.unlabelled]
        assert [len(part) for part in parts] == [len(every) - 90, 30, 60]
        assert sorted(row for part in parts for row in part) == sorted(every)
        assert divide(every, 1, 30, 60).labelled != shares.labelled

    def test_the_attacker_keeps_half(self) -> None:
        shares = divide(rows(100), 0, 30, 1000)
        assert len(shares.main) == 50
        assert len(shares.labelled) == 30
        assert len(shares.unlabelled) == 20


class TestPlan:
    def test_a_base_is_poisoned_on_another_task(self, tmp_path: Path, data: Path) -> None:
        plan = cells(plan_of(tmp_path, data, "--tasks", "films", "books"))
        assert {(c.threat, c.task) for c in plan} == {
            ("poisoned_adapter", "films"),
            ("poisoned_adapter", "books"),
            ("poisoned_base", "films"),
        }

    @pytest.mark.parametrize("options", [["--tasks", "books"], ["--tasks", "films", "--methods", "shrink"]])
    def test_a_plan_without_cells_is_refused(self, tmp_path: Path, data: Path, options: list[str]) -> None:
        command = ["--data", data, "--out", tmp_path / "out", "--bert", bert_folder(tmp_path), "--source"]
        with pytest.raises(SystemExit, match="nothing to do: bases are poisoned on books"):
            main([*map(str, command), "books", "--threats", "poisoned_base", *options])

    def test_an_option_that_is_off_by_default_changes_no_key_until_it_is_set(self) -> None:
        """So a step may gain one, and the cells that were filled before stay the plan's."""
        assert not {"adversary", "adversary_words", "dropout_reading", "mixup"} & options(RoraStep()).keys()
        assert options(RoraStep(insert=0.0)) == {**options(RoraStep()), "insert": 0.0}
        assert options(RoraStep(adversary=0.5)) == {
            **options(RoraStep()),
            "adversary": 0.5,
            "adversary_words": 5,
            "adversary_steps": 2,
        }

    def test_every_need_comes_first(self, tmp_path: Path, data: Path) -> None:
        setting = plan_of(tmp_path, data)
        order = in_order(cells(setting), setting)
        place = {node: index for index, node in enumerate(order)}
        assert all(place[need] < place[node] for node in order for need in needs(node, setting))
        bases = {node.task for node in order if isinstance(node, Made) and node.kind == "poisoned_base"}
        assert bases == {"books"}

    def test_ablations_come_last(self, tmp_path: Path, data: Path) -> None:
        order = [METHODS[cell.method].ablation for cell in cells(plan_of(tmp_path, data))]
        assert order == sorted(order)
        assert any(order)

    def test_what_waits_longest_of_a_seed_comes_first(self, tmp_path: Path, data: Path) -> None:
        plan = cells(plan_of(tmp_path, data, "--quick", "--seeds", "1", "0"))
        seeds = [cell.seed for cell in plan]
        assert seeds == sorted(seeds, reverse=True)
        names = [str(cell) for cell in plan]
        assert names[: names.index("bert/poisoned_base/films/insent/1/recipe")] == [
            "bert/poisoned_adapter/films/insent/1/shrink",
            "bert/poisoned_base/films/insent/1/given",
        ]

    def test_folders_hang_on_what_decides(self, tmp_path: Path, data: Path) -> None:
        setting = plan_of(tmp_path, data)
        cell = Cell("bert", "poisoned_adapter", "films", "badnet", 0, "recipe")
        made = needs(cell, setting)[0]
        longer = plan_of(tmp_path, data, "--steps", "7")
        assert folder(cell, longer) != folder(cell, setting)
        assert folder(made, longer) == folder(made, setting)
        assert key(cell, plan_of(tmp_path, data)) == key(cell, setting)
        other = plan_of(tmp_path, data, "--attack-steps", "7")
        assert key(made, other) != key(made, setting)
        assert key(cell, other) != key(cell, setting)
        assert key(cell, plan_of(tmp_path, data, "--dev")) != key(cell, setting)

    def test_a_trigger_of_any_text_has_a_folder(self, tmp_path: Path, data: Path) -> None:
        setting = plan_of(tmp_path, data)
        places = {
            folder(Cell("bert", "poisoned_adapter", "films", attack, 0, "recipe"), setting)
            for attack in ("word:../cf", "word:.. cf", f"sentence:{'so it goes ' * 99}")
        }
        assert len(places) == 3
        assert all(place.resolve().is_relative_to(setting.out) for place in places)
        assert {place.parent.parent for place in places} == {setting.out / "cells/bert/poisoned_adapter"}

    @pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.steps])
    def test_steps_are_as_long_as_asked(self, name: str) -> None:
        method = METHODS[name]
        for threat in method.threats:
            trained = [s for s in steps_of(method, threat, 7) if isinstance(s, RoraStep)]
            assert all(step.steps == 7 for step in trained)

    def test_ablations_differ_from_the_recipe(self) -> None:
        for name, method in METHODS.items():
            if method.ablation and method.unlabelled and method.steps:
                for threat in method.threats:
                    assert method.steps(threat) != recipe(threat), name


def test_an_attack_is_trained_until_it_reaches_its_gate() -> None:
    asr = iter((40, 96, 99))
    rounds, found = until(lambda _: Score(1, 1, next(asr), 100), 95, 3)
    assert (rounds, found.asr) == (2, 96)
    rounds, found = until(lambda _: Score(1, 1, 10, 100), 95, 3)
    assert (rounds, found.asr) == (3, 10)


def entry(ca: Sequence[float], asr: Sequence[float]) -> Entry:
    """Values of the seeds 0, 1, …"""
    return Entry(dict(enumerate(zip(ca, asr, strict=True))))


class TestTables:
    COLUMN = Column("films", "badnet")

    @pytest.mark.parametrize(
        ("ca", "asr", "meets"), [(86.0, 24.0, True), (85.9, 24.0, False), (86.0, 25.1, False)]
    )
    def test_target_against_a_poisoned_adapter(self, ca: float, asr: float, meets: bool) -> None:
        given, yardstick = entry((86.0, 88.0), (100.0, 100.0)), entry((87.0, 87.0), (18.0, 20.0))
        assert met("poisoned_adapter", entry((ca,), (asr,)), given, yardstick) is meets

    @pytest.mark.parametrize(
        ("ca", "asr", "meets"), [(87.0, 10.0, True), (86.9, 10.0, False), (87.0, 10.1, False)]
    )
    def test_target_against_a_poisoned_base(self, ca: float, asr: float, meets: bool) -> None:
        given, yardstick = entry((87.0,), (100.0,)), entry((87.0,), (5.0,))
        assert met("poisoned_base", entry((ca,), (asr,)), given, yardstick) is meets

    def test_summary_counts_targets_and_names_the_worst(self) -> None:
        second = Column("films", "style")
        found = {
            "given": {self.COLUMN: entry((90.0,), (100.0,)), second: entry((90.0,), (100.0,))},
            "yardstick": {self.COLUMN: entry((90.0,), (10.0,)), second: entry((90.0,), (20.0,))},
            "recipe": {self.COLUMN: entry((89.5,), (12.0,)), second: entry((87.5,), (22.0,))},
        }
        lines = summary(found, "poisoned_adapter").splitlines()
        assert lines[-1] == "| loramend, default recipe | 1.5 (2.5) | 2.0 (2.0) | 1 of 2 |"

    def test_summary_compares_the_same_seeds(self) -> None:
        """A control that only the second seed has loses three points, not one."""
        found = {
            "given": {self.COLUMN: entry((86.0, 90.0), (100.0, 100.0))},
            "yardstick": {self.COLUMN: entry((86.0, 90.0), (10.0, 20.0))},
            "continued": {self.COLUMN: Entry({1: (87.0, 60.0)})},
            "shrink": {Column("films", "style"): entry((80.0,), (50.0,))},
        }
        lines = summary(found, "poisoned_adapter").splitlines()
        assert lines[-1] == "| control: fine-tuned on | 3.0 (3.0) | 40.0 (40.0) | 0 of 1 |"

    def test_figure_names_every_method_but_ablations_and_repeats_byte_for_byte(self, tmp_path: Path) -> None:
        each = {self.COLUMN: entry((80.0,), (50.0,)), Column("books", "style"): entry((70.0,), (20.0,))}
        found = {name: each for name, method in METHODS.items() if "poisoned_adapter" in method.threats}
        for name in ("a.svg", "b.svg"):
            draw(found, "poisoned_adapter", tmp_path / name)
        drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
        assert drawn == (tmp_path / "b.svg").read_text(encoding="utf-8")
        for name in found:
            assert (METHODS[name].title in drawn) is not METHODS[name].ablation, name
        assert "FILMS, BadNet" in drawn

    def test_document_is_written_between_its_markers_alone(self, tmp_path: Path) -> None:
        document = tmp_path / "page.md"
        document.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
        for _ in range(2):
            write(document, "new\n")
            assert document.read_text(encoding="utf-8") == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
        (tmp_path / "bare.md").write_text("nothing", encoding="utf-8")
        with pytest.raises(ValueError, match="lacks the lines"):
            write(tmp_path / "bare.md", "new\n")

    def test_the_committed_document_has_its_markers(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "07-backdoors.md").read_text(encoding="utf-8")
        assert text.count(BEGIN) == text.count(END) == 1
        assert text.index(BEGIN) < text.index(END)


def fill_records(setting: Setting, chosen: Sequence[Cell], asr: int) -> None:
    """Records as a run leaves them."""
    for cell in chosen:
        place = folder(cell, setting)
        place.mkdir(parents=True)
        score = {"right": 80 + cell.seed, "n": 100, "hits": asr, "triggered": 50}
        (place / "record.json").write_text(json.dumps({"score": score, "code": "x"}), encoding="utf-8")


def test_page_tells_means_spread_and_what_is_missing(tmp_path: Path, data: Path) -> None:
    options = ["--threats", "poisoned_adapter", "--attacks", "badnet", "--methods", "given", "yardstick"]
    setting = plan_of(tmp_path, data, *options)
    plan = cells(setting)
    fill_records(setting, [cell for cell in plan if cell != plan[-1]], 45)
    told = page(plan, setting, {"bert": "Tiny"}, {"bert-poisoned_adapter": "figure.svg"})
    assert "### Tiny, poisoned adapter" in told
    assert "| as it came | 81.0 ± 1.0 / 90.0 ± 0.0 |" in told
    assert "(2 of 3)" in told
    assert "5 of 6 cells" in told
    assert "](figure.svg)" in told


def test_what_waits_for_an_attack_that_missed_its_gate_is_left_out(tmp_path: Path, data: Path) -> None:
    """The base's attack misses, so neither the adapter on it nor any repair of that adapter can run."""
    options = ["--threats", "poisoned_base", "--attacks", "badnet", "--seeds", "0", "--methods", "given"]
    setting = plan_of(tmp_path, data, *options)
    base = next(node for node in in_order(cells(setting), setting) if str(node).startswith("made/bert/poi"))
    folder(base, setting).mkdir(parents=True)
    record = {"passed": False, "asr": 12.5, "dev": {}, "seconds": 0}
    (folder(base, setting) / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert execute(cells(setting), setting, 1)
    assert missed(cells(setting), setting) == {str(base): 12.5}


def test_what_another_run_over_the_folder_filled_meanwhile_is_not_run_again(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--threats", "poisoned_adapter", "--attacks", "badnet", "--seeds", "0", "--methods", "given"]
    setting = plan_of(tmp_path, data, *options, "recipe")
    plan, ran = cells(setting), []

    def run(node: Node, setting: Setting) -> dict[str, Any]:
        if isinstance(node, Made):
            folder(node, setting).mkdir(parents=True)
            (folder(node, setting) / "record.json").write_text('{"passed": true}', encoding="utf-8")
        else:  # the other run fills the rest
            fill_records(setting, plan, 10)
        ran.append(node)
        return {"score": {"right": 1, "n": 1, "hits": 1, "triggered": 1}, "seconds": 0}

    def threads(jobs: int, **_: object) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(jobs)

    monkeypatch.setattr(schedule, "run", run)
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", threads)
    assert execute(plan, setting, 1)
    assert ran == [needs(plan[0], setting)[0], plan[0]]


@pytest.mark.e2e
def test_command_fills_every_cell_and_goes_on_where_it_stopped(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = bert_folder(tmp_path)
    document = tmp_path / "docs" / "page.md"
    document.parent.mkdir()
    document.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    command = ["--data", data, "--out", tmp_path / "out", "--bert", bert, "--tasks", "films"]
    command += ["--source", "books", "--attacks", "badnet", "--seeds", "0", "--document", document]
    command += [
        "--gate",
        "0",
        "--attack-steps",
        "20",
        "--steps",
        "4",
        "--labelled",
        "40",
        "--unlabelled",
        "60",
    ]
    arguments = [*map(str, command), "--methods", *WHOLE]
    assert main([*arguments, "--jobs", "1", "--only", "*/given"]) == 0
    assert "2 of " in document.read_text(encoding="utf-8")
    assert main(arguments) == 0
    text = document.read_text(encoding="utf-8")
    setting = setting_of(parser().parse_args(arguments))
    count = len(cells(setting))
    assert f"{count} of {count} cells" in text
    for threat in ("poisoned-adapter", "poisoned-base"):
        assert (document.parent / "figures" / f"backdoors-bert-{threat}.svg").stat().st_size > 5000
    assert not list((tmp_path / "out").rglob(".making-*"))
    assert not list((tmp_path / "out").rglob("*.partial"))

    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("record.json")}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("record.json")} == before
    assert main([*arguments, "--list"]) == 0
    assert "to do" not in capsys.readouterr().out

    records = tmp_path / "docs" / "cells.jsonl"
    assert main([*arguments, "--tables", "--records", str(records)]) == 0
    elsewhere = tmp_path / "elsewhere"
    again = [str(elsewhere) if part == str(tmp_path / "out") else part for part in arguments]
    assert main([*again, "--records", str(records)]) == 0
    assert document.read_text(encoding="utf-8") == text
    assert not list(elsewhere.rglob("record.json")), "what the records hold is not run again"
