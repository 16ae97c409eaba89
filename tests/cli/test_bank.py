"""`loramend bank`, and `--bank` of the commands that measure, on real small adapters."""

import json
from pathlib import Path

import pytest

from loramend.contracts.bank import Bank, BankBuilt
from loramend.contracts.report import Report
from tests.bank.adapters import write_adapter
from tests.cli.test_commands import loramend, refused

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("elsewhere")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(6):
        write_adapter(tmp_path / "mine" / f"a{seed}", seed=seed)
    return tmp_path / "mine"


def test_a_bank_is_built_and_shown(folder: Path, tmp_path: Path) -> None:
    (folder / "old.bin").write_bytes(b"\x80\x04")
    write_adapter(folder / "other", rank=2)
    code, out, err = loramend("bank", "build", folder)
    assert (code, err) == (0, "")
    assert "Left out old.bin: pickle_refused" in out
    assert "7 adapters in the bank bank.json." in out
    bank = Bank.model_validate_json((tmp_path / "bank.json").read_bytes())
    assert [adapter.name for adapter in bank.adapters] == [*(f"a{seed}" for seed in range(6)), "other"]
    code, out, err = loramend("bank", "show", "bank.json")
    assert (code, err) == (0, "")
    for words in ("6 comparable adapters", "Rank: 4", "Base model named: org/base", "of 6 are called unlike"):
        assert words in out
    assert "Too few to set another beside them." in out
    assert Bank.model_validate_json(loramend("bank", "show", "bank.json", "--json")[1]) == bank


def test_the_same_folder_gives_the_same_file_and_none_is_lost(folder: Path, tmp_path: Path) -> None:
    code, out, _ = loramend("bank", "build", folder, "--out", "one.json", "--json")
    built = BankBuilt.model_validate_json(out)
    assert (code, built.file, len(built.adapters), built.skipped) == (0, "one.json", 6, [])
    assert "output_exists" in refused("bank", "build", folder, "--out", "one.json")
    before = (tmp_path / "one.json").read_bytes()
    assert loramend("bank", "build", folder, "--out", "one.json", "--force")[0] == 0
    assert (tmp_path / "one.json").read_bytes() == before


def test_an_adapter_is_set_beside_a_bank(folder: Path, tmp_path: Path) -> None:
    assert loramend("bank", "build", folder)[0] == 0
    strong = write_adapter(tmp_path / "strong", seed=9, scale=5.0)
    code, out, err = loramend("inspect", strong, "--bank", "bank.json", "--report", "report.html")
    assert (code, err) == (0, "")
    assert "beside the bank" in out
    assert "unlike the bank" in out
    assert "arXiv 2602.15195" in out
    assert "Triage from weights" in (tmp_path / "report.html").read_text()
    report = Report.model_validate_json(loramend("inspect", strong, "--bank", "bank.json", "--json")[1])
    assert report.triage is not None
    assert report.triage.verdict == "unlike_the_bank"
    repair = ("repair", strong, "--step", "shrink:factor=0.1", "--bank", "bank.json", "--out", "out")
    assert loramend(*repair)[0] == 0
    repaired = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert repaired.triage == report.triage, "it is of the adapter as it came"
    assert "unlike-bank" in (tmp_path / "out" / "report.sarif").read_text()


def test_without_a_bank_or_comparable_adapters_that_is_said(folder: Path, tmp_path: Path) -> None:
    other = write_adapter(tmp_path / "other", size=16)
    assert "no bank was given" in loramend("inspect", other)[1]
    assert loramend("bank", "build", folder)[0] == 0
    code, out, _ = loramend("inspect", other, "--bank", "bank.json")
    assert code == 0
    assert "No comparison was possible" in out
    assert "6 with other shapes" in out


def test_what_is_wrong_is_one_line(folder: Path, tmp_path: Path) -> None:
    adapter = folder / "a0"
    assert "adapter_not_found" in refused("bank", "build", tmp_path / "none")
    for name, content, code in (
        ("none.json", None, "bank_not_found"),
        ("text.json", "hello", "bank_invalid"),
        ("nan.json", '{"adapters": [{"name": NaN}]}', "bank_invalid"),
        ("later.json", json.dumps({"schema_version": "9.0", "adapters": []}), "bank_invalid"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
            assert code in refused("serve", "--bank", name, "--data", "data")
        assert code in refused("bank", "show", name)
        assert code in refused("inspect", adapter, "--bank", name)
        assert code in refused("repair", adapter, "--step", "shrink", "--bank", name, "--out", "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "data").exists()
