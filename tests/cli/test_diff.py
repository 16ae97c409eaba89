"""`loramend diff` on real small adapters and models."""

import json
from pathlib import Path

import pytest

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.archive import pack
from loramend.contracts.diff import AdapterDiff
from tests.cli.test_commands import loramend, refused
from tests.models import build_trio

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_an_adapter_beside_its_repaired_self(tmp_path: Path) -> None:
    trio = build_trio(tmp_path)
    assert loramend("repair", trio.adapter, "--out", "out", "--step", "shrink:factor=0.5")[0] == 0
    asked = ("diff", trio.adapter, "out", "--base", trio.base)
    code, out, err = loramend(*asked, "--json")
    assert (code, err) == (0, "")
    found = AdapterDiff.model_validate_json(out)
    assert found.totals.common == 4
    for module in found.modules:
        assert (module.cosine, module.distance) == pytest.approx((1.0, 0.5), abs=1e-5)
        assert module.a.base is not None
        assert module.b.base is not None
        assert module.a.base.strength_scaled is not None
        assert module.b.base.strength_scaled == pytest.approx(2 * module.a.base.strength_scaled, rel=1e-5)
    assert found.references[0].role == "base"
    code, out, err = loramend(*asked, "--report", "diff.html")
    assert (code, err) == (0, "")
    assert all(word in out for word in ("model.layers.…", "strength", "cosine", "50.0%"))
    assert (tmp_path / "diff.html").read_text().startswith("<!doctype html>")
    assert loramend(*asked, "--report", "diff.json")[0] == 0
    assert AdapterDiff.model_validate_json((tmp_path / "diff.json").read_text()).modules == found.modules


def test_any_two_forms_and_what_only_one_of_them_has(tmp_path: Path) -> None:
    first, second = make_adapter(tmp_path / "a", modules=8), make_adapter(tmp_path / "b", rank=2)
    pack(second, tmp_path / "b.zip")
    code, out, err = loramend("diff", first, tmp_path / "b.zip")
    assert (code, err) == (0, "")
    assert "4 | 2" in out
    assert "Only in A: model.layers.2.self_attn.q_proj" in out
    assert "and 1 more" in out
    code, out, _ = loramend("diff", make_adapter(tmp_path / "c", size=16), second)
    assert code == 0
    assert "Of other shape" in out


def test_what_is_wrong_is_one_line_that_names_it(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "a")
    assert "adapter_not_found" in refused("diff", adapter, tmp_path / "none")
    assert "--base" in refused("diff", adapter, adapter, "--base", tmp_path / "none")
    assert "--report" in refused("diff", adapter, adapter, "--report", tmp_path)
    assert "device_unavailable" in refused("diff", adapter, adapter, "--device", "warp")
    assert loramend("diff", adapter)[0] == 2
    evil = make_adapter(tmp_path / "evil")
    config = json.loads((evil / "adapter_config.json").read_text())
    (evil / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LOHA"}))
    assert "peft_type_unsupported" in refused("diff", adapter, evil)
