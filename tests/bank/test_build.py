"""From a folder of adapters to a bank."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from loramend.adapter.archive import pack
from loramend.adapter.read import read_adapter
from loramend.bank.build import build_bank
from loramend.bank.describe import describe
from loramend.bank.file import bank_text
from loramend.contracts.errors import AdapterError
from loramend.contracts.job import Progress
from tests.bank.adapters import write_adapter
from tests.support_updates import dense


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_folders_and_archives_go_in_and_the_rest_is_told(tmp_path: Path, scratch: Path) -> None:
    folder = tmp_path / "adapters"
    write_adapter(folder / "b", seed=1)
    pack(write_adapter(tmp_path / "c", seed=2), folder / "a.tar.gz")
    shutil.copytree(folder / "b", folder / "copy")
    write_adapter(folder / "odd", seed=3)
    (folder / "odd" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_dora": True}))
    (folder / "empty").mkdir()
    (folder / "old.bin").write_bytes(b"\x80\x04")
    (folder / "broken.zip").write_bytes(b"PK\x03\x04nothing")
    (folder / "README.md").write_text("not an adapter")
    (folder / ".hidden").mkdir()
    seen: list[Progress] = []
    bank, skipped = build_bank(folder, scratch, on_progress=seen.append)
    assert [adapter.name for adapter in bank.adapters] == ["a.tar.gz", "b"]
    assert {each.name: each.code for each in skipped} == {
        "broken.zip": "archive_invalid",
        "copy": "duplicate",
        "empty": "adapter_not_found",
        "odd": "config_unsupported",
        "old.bin": "pickle_refused",
    }
    assert list(scratch.iterdir()) == []
    assert seen[-1].total == 7


def test_the_same_adapters_give_the_same_file(tmp_path: Path, scratch: Path) -> None:
    for index in range(3):
        write_adapter(tmp_path / "one" / f"a{index}", seed=index)
        write_adapter(tmp_path / "two" / f"a{2 - index}", seed=2 - index)
    one, two = (bank_text(build_bank(tmp_path / name, scratch)[0]) for name in ("one", "two"))
    assert one == two
    assert str(tmp_path) not in one


def test_a_bank_holds_the_updates_statistics(tmp_path: Path) -> None:
    """Against the dense matrices, in double precision; the last digits are rounded away."""
    adapter = read_adapter(write_adapter(tmp_path / "a"))
    found = describe(adapter)
    assert found.files[-1].path == "adapter_model.safetensors"
    for module in found.modules:
        delta = dense(adapter.updates[module.name])
        sigma = torch.linalg.svdvals(delta)[:4]
        p = sigma / sigma.sum()
        centred = delta - delta.mean()
        told = module.statistics
        assert told.sigma_1 == pytest.approx(float(sigma[0]), rel=1e-9)
        assert told.norm == pytest.approx(float(delta.norm()), rel=1e-9)
        assert told.concentration == pytest.approx(float(p[0]), rel=1e-9)
        assert told.spectral_entropy == pytest.approx(float(-(p * p.log()).sum()), rel=1e-9)
        fourth = float(centred.pow(4).mean() / centred.square().mean() ** 2)
        assert told.kurtosis == pytest.approx(fourth, rel=1e-9)


def test_nothing_to_build_of(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "adapters" / "none").mkdir(parents=True)
    for folder in (tmp_path / "missing", tmp_path / "adapters", scratch):
        with pytest.raises(AdapterError) as caught:
            build_bank(folder, scratch)
        assert caught.value.code == "adapter_not_found"
