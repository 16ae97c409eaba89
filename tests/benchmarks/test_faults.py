"""The fault campaign with few jobs: a real broker, API and workers, killed while they are at it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = ["worker_killed", "publishing_killed", "api_killed", "broker_killed", "delivered_twice"]


@pytest.mark.e2e
def test_nothing_is_lost(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    options = ["--jobs", "20", "--only", *FAULTS, "--document", str(page)]
    command = [sys.executable, "-m", "benchmarks.faults", *options]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page.read_text(), re.M)
    assert [row[0] for row in rows] == [
        "none",
        "worker killed -9",
        "worker killed -9 while publishing",
        "API killed -9 and restarted",
        "broker killed -9 and restarted",
        "same message delivered again",
        "all",
    ]
    assert all(int(done) > 0 for _, done, *_ in rows[1:])
    assert all(jobs == succeeded and losses == "0" for *_, jobs, succeeded, _, losses in rows)
    assert page.read_text().startswith("before\n<!-- table -->\n")
    assert page.read_text().endswith("<!-- end of table -->\nafter\n")
