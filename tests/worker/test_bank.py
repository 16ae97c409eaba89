"""Jobs of a worker that was given a bank of adapters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loramend.bank.build import build_bank
from loramend.bank.file import bank_text
from loramend.contracts.report import Report
from service.jobs.records import JobRecord
from tests.bank.adapters import write_adapter
from tests.fixtures.broker import running_broker
from tests.fixtures.worker import Bench

pytestmark = pytest.mark.e2e


def report_of(bench: Bench, record: JobRecord) -> Report:
    ended = bench.ended(record)
    assert (ended.status, ended.error) == ("succeeded", None)
    assert ended.report is not None
    return Report.model_validate_json(b"".join(bench.storage.open(ended.report)))


def test_inspections_and_repairs_are_set_beside_it(tmp_path: Path) -> None:
    for seed in range(6):
        write_adapter(tmp_path / "mine" / f"a{seed}", seed=seed)
    (tmp_path / "scratch").mkdir()
    bank = tmp_path / "bank.json"
    bank.write_text(bank_text(build_bank(tmp_path / "mine", tmp_path / "scratch")[0]))
    adapter = write_adapter(tmp_path / "strong", seed=9, scale=5.0)
    with running_broker() as url:
        bench = Bench(tmp_path, url, {"LORAMEND_BANK": str(bank)})
        with bench.worker():
            inspected = report_of(bench, bench.submit(adapter, kind="inspect", steps=None, threat=None))
            repaired = report_of(bench, bench.submit(adapter))
            assert inspected.triage is not None
            assert inspected.triage.verdict == "unlike_the_bank"
            assert inspected.triage.bank is not None
            assert inspected.triage.bank.name == "bank.json", "nothing of the server's folders"
            assert repaired.triage == inspected.triage
            bank.write_text("broken")
            ended = bench.ended(bench.submit(adapter))
            assert ended.error is not None
            assert ended.error.code == "bank_invalid"
        bench.close()


@pytest.mark.parametrize(("content", "code"), [(None, "There is no bank file"), ("{}", "not a bank")])
def test_a_worker_does_not_start_with_a_bank_it_cannot_read(
    tmp_path: Path, content: str | None, code: str
) -> None:
    if content is not None:
        (tmp_path / "bank.json").write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "worker", "--queues", "spectral"],
        env=os.environ | {"LORAMEND_BANK": str(tmp_path / "bank.json")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("LORAMEND_BANK: ")
    assert code in done.stderr
