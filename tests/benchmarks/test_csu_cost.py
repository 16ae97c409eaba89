"""The cost benchmark runs at a small size, through the real command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmark(*options: str | Path) -> str:
    command = [sys.executable, "-m", "benchmarks.csu_cost", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.e2e
def test_prints_time_and_memory_and_cleans_up(tmp_path: Path) -> None:
    work = tmp_path / "work"
    told = benchmark("--work", work, "--layers", "2", "--size", "256", "--repeats", "1")
    assert re.search(r"cold/floor: median \d+\.\d\d", told)
    peak = re.search(r"peak memory: (\d+\.\d\d) GB", told)
    assert peak
    assert 0.1 < float(peak[1]) < 1.5
    made = work / "2x256"
    assert sorted(path.name for path in made.iterdir()) == ["adapter", "aligned", "base", "made"]
    assert benchmark("--work", work, "--clean") == ""
    assert not work.exists()
