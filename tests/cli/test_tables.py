"""Tables lose no digit and no name, whatever the terminal's width."""

from pathlib import Path

import pytest

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.read import read_adapter
from loramend.cli.tables import print_evaluation, print_report
from loramend.contracts.report import Report
from loramend.contracts.steps import ShrinkStep
from loramend.repair import inspect, repair
from tests.report.evidence import evaluation, with_evidence


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", modules=3)


def printed(report: Report, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(report)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_every_number_is_whole(
    folder: Path, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    report = inspect(read_adapter(folder))
    out = printed(report, capsys)
    for module in report.modules:
        row = f"{module.name.removeprefix('model.layers.')} "
        (line,) = [line for line in out.splitlines() if line.startswith(f" {row}") or line.startswith(row)]
        spectrum = module.before
        for value in (spectrum.sigma[0], spectrum.norm, spectrum.stable_rank, spectrum.effective_rank):
            assert f" {value:.3g}" in line


def test_a_repair_fits_a_terminal_of_80_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = repair(read_adapter(folder), [ShrinkStep(factor=0.25)])
    rows = [line for line in printed(report, capsys).splitlines() if " → " in line]
    assert len(rows) == 3
    assert all(len(row) <= 80 and "shrink 75.0%" in row for row in rows)


def test_a_single_module_keeps_its_last_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(inspect(read_adapter(make_adapter(tmp_path / "one", modules=1))), capsys)
    assert "model.layers.0.self_attn.…" in out
    assert "q_proj" in out


def test_behaviour_and_calibration_fit_a_terminal_of_80_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, report = repair(read_adapter(folder), [ShrinkStep(factor=0.25)])
    out = printed(with_evidence(report), capsys)
    adapters = ("before", "after", "fresh_lora", "continued", "shrink")
    candidates = ("mix=0", "mix=0.1", "mix=0.2")
    rows = {name: line for line in out.splitlines() for name in line.split()[:1] if "% (" in line}
    assert {*adapters, *candidates} <= rows.keys()
    assert max(len(rows[name].rstrip()) for name in (*adapters, *candidates)) <= 80
    assert "88.0% (84.9 to 90.6)" in rows["before"]
    assert rows["mix=0.1"].split()[-2:] == ["yes", "yes"]
    assert rows["mix=0"].split()[-1] == "no"


def test_an_evaluation_alone_shows_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(evaluation())
    assert "attack success" in capsys.readouterr().out
    print_evaluation(evaluation(trigger=None))
    out = capsys.readouterr().out
    assert "attack success" not in out
    assert "88.0% (84.9 to 90.6)" in out
    assert all(word in out.split() for word in " ".join(evaluation(trigger=None).sentences).split())
