"""Progress as a terminal shows it."""

import pytest

from loramend.cli.progress import progress_on_stderr
from loramend.contracts.job import Progress


def test_training_shows_its_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    values = {"loss": 0.123456, "omega": 0.5, "samples_per_second": 87.0}
    with progress_on_stderr() as show:
        show(Progress(phase="train", done=3, total=9, unit="steps", values=values))
        show(Progress(phase="evaluate", done=1, total=2, unit="examples", detail="after\x1b[2J"))
    drawn = capsys.readouterr().err
    assert "Training" in drawn
    assert "loss 0.123  Ω 0.5  samples/s 87" in drawn
    assert "Evaluating" in drawn
    assert "after\\x1b[2J" in drawn, "a name cannot steer the terminal"


def test_nothing_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on_stderr() as show:
        show(Progress(phase="train", done=3, total=9, unit="steps"))
    assert capsys.readouterr().err == ""
