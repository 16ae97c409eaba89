"""The benchmark of triage on small adapters."""

import sys
from pathlib import Path

import pytest

from benchmarks.triage import auc, main
from tests.bank.adapters import write_adapter

pytestmark = pytest.mark.slow


def test_it_counts_what_stands_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(7):
        write_adapter(tmp_path / "clean" / f"a{seed}", seed=seed)
    for seed in range(2):
        write_adapter(tmp_path / "odd" / f"b{seed}", seed=10 + seed, scale=6.0)
    monkeypatch.setattr(sys, "argv", ["triage", str(tmp_path / "clean"), str(tmp_path / "odd")])
    main()
    told = capsys.readouterr().out
    assert "suspected: 2 of 2 unlike the bank: 100.0%" in told
    norm = next(line for line in told.splitlines() if line.startswith("‖ΔW‖ over all modules"))
    assert norm.endswith("2 of 2  1.00")


def test_auc() -> None:
    assert auc([2.0, 3.0], [1.0]) == 1.0
    assert auc([1.0], [1.0, 2.0]) == 0.25
