"""Against peft itself: scales and deltas as read, and as peft reads what is written."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from loramend.adapter.check import check_folder
from loramend.adapter.read import read_adapter
from loramend.adapter.write import write_adapter
from tests.adapter import golden
from tests.adapter.compare import ROUNDING, delta, distance, resized


def outputs(model: PeftModel, case: golden.Case) -> Tensor:
    """What the whole model computes for some fixed input."""
    torch.manual_seed(3)
    shape = {golden.Convolutions: (2, 4, 8), golden.Attention: (3, 2, 8)}.get(case.base)
    with torch.no_grad():
        if shape is None:
            return model.eval()(input_ids=torch.arange(6)[None] + 1).logits
        return model.eval()(torch.randn(shape))


@pytest.mark.parametrize("name", golden.CASES)
def test_scale_and_delta_agree_with_peft(name: str, tmp_path: Path) -> None:
    case = golden.CASES[name]
    model = golden.save(case, tmp_path)
    adapter = read_adapter(tmp_path)
    expected = list(golden.deltas(model))
    assert {name for name, _, _ in expected} == set(adapter.updates)
    for name, theirs, scale in expected:
        update = adapter.updates[name]
        assert update.scale == pytest.approx(scale, rel=1e-12)
        assert update.dtype == case.dtype
        # peft rounds its product to a 16-bit layer's dtype; ours is taken in float32.
        assert distance(delta(update), theirs) < max(1e-6, ROUNDING[case.dtype])
    assert set(adapter.features) == set(case.features)


@pytest.mark.parametrize("name", golden.CASES)
def test_weight_names_the_base_tensor(name: str, tmp_path: Path) -> None:
    case = golden.CASES[name]
    golden.save(case, tmp_path)
    state = golden.base_model(case).state_dict()
    for update in read_adapter(tmp_path).updates.values():
        stored = tuple(state[update.weight].shape)
        if update.expert is not None:
            stored = stored[1:]
        elif update.kind == "conv":
            stored = (stored[0], state[update.weight][0].numel())
        assert stored == (update.shape[::-1] if update.transposed else update.shape)


@pytest.mark.parametrize("name", golden.CASES)
def test_peft_loads_what_is_written(name: str, tmp_path: Path) -> None:
    case = golden.CASES[name]
    before = golden.save(case, tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    written = write_adapter(adapter, tmp_path / "out")
    assert [file.path for file in written] == ["adapter_config.json", "adapter_model.safetensors"]
    after = golden.load(case, tmp_path / "out")
    loaded = {name: (theirs, scale) for name, theirs, scale in golden.deltas(after)}
    assert set(loaded) == set(adapter.updates)
    for name, (theirs, scale) in loaded.items():
        assert scale == 1.0
        assert distance(delta(adapter.updates[name]), theirs) < ROUNDING[case.dtype]
    # The whole model, so that lora_B's biases, trained biases, saved modules and token rows count too.
    tolerance = 100 * ROUNDING[case.dtype]
    torch.testing.assert_close(outputs(after, case), outputs(before, case), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", golden.CASES)
def test_what_is_written_reads_the_same(name: str, tmp_path: Path) -> None:
    case = golden.CASES[name]
    golden.save(case, tmp_path / "in")
    first = read_adapter(tmp_path / "in")
    digests = write_adapter(first, tmp_path / "out")
    second = read_adapter(tmp_path / "out")
    assert second.updates.keys() == first.updates.keys()
    for name, update in first.updates.items():
        other = second.updates[name]
        assert distance(delta(other), delta(update)) < ROUNDING[case.dtype]
        assert (other.dtype, other.weight, other.kind) == (update.dtype, update.weight, update.kind)
    assert write_adapter(first, tmp_path / "twice") == digests
    # A second pass changes nothing any more.
    assert write_adapter(second, tmp_path / "again")[1] == digests[1]


@pytest.mark.parametrize("name", ["modules_to_save", "bias_lora_only", "bias_all", "trainable_tokens"])
def test_other_tensors_pass_byte_for_byte(name: str, tmp_path: Path) -> None:
    golden.save(golden.CASES[name], tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    write_adapter(adapter, tmp_path / "out")
    before = load_file(tmp_path / "in" / "adapter_model.safetensors")
    after = load_file(tmp_path / "out" / "adapter_model.safetensors")
    others = {key for key in before if "lora_" not in key}
    assert others
    assert set(adapter.passthrough) == others == {key for key in after if "lora_" not in key}
    assert all(torch.equal(before[key], after[key]) for key in others)
    assert check_folder(tmp_path / "in").passed_through == tuple(adapter.passthrough)


def test_unrepaired_output_keeps_every_other_key_of_the_config(tmp_path: Path) -> None:
    golden.save(golden.CASES["patterns"], tmp_path / "in")
    write_adapter(read_adapter(tmp_path / "in"), tmp_path / "out")
    before = json.loads((tmp_path / "in" / "adapter_config.json").read_text())
    after = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    changed = {key for key in before if before[key] != after[key]}
    assert after.keys() == before.keys()
    assert changed <= {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"}
    assert after["use_rslora"] is False
    assert after["rank_pattern"] == after["alpha_pattern"] != {}


@pytest.mark.parametrize(
    "name",
    ["patterns", "fan_in_fan_out", "embedding", "conv", "multihead_attention", "two_parameters", "lora_bias"],
)
def test_changed_ranks_and_scales_load_in_peft(name: str, tmp_path: Path) -> None:
    case = golden.CASES[name]
    golden.save(case, tmp_path / "in")
    adapter = resized(read_adapter(tmp_path / "in"))
    write_adapter(adapter, tmp_path / "out")
    for name, theirs, scale in golden.deltas(golden.load(case, tmp_path / "out")):
        assert scale == 1.0
        assert distance(delta(adapter.updates[name]), theirs) < 1e-6
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert all(key.startswith("^") for key in config["rank_pattern"])


def test_ranks_that_agree_need_no_patterns(tmp_path: Path) -> None:
    golden.save(golden.CASES["linear"], tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    doubled = {
        name: update.with_factors(torch.cat([update.B, update.B], 1), torch.cat([update.A, update.A]), 0.25)
        for name, update in adapter.updates.items()
    }
    write_adapter(adapter.with_updates(doubled), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 8)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}


def test_a_lora_bias_adds_the_same_whatever_becomes_of_the_scale(tmp_path: Path) -> None:
    case = golden.CASES["lora_bias"]
    before = golden.save(case, tmp_path / "in")
    adapter = resized(read_adapter(tmp_path / "in"))
    write_adapter(adapter, tmp_path / "out")
    after = golden.load(case, tmp_path / "out")
    layers = dict(after.named_modules())
    for path, layer in before.named_modules():
        if hasattr(layer, "lora_B") and "default" in layer.lora_B:
            other = layers[path]
            was = layer.lora_B["default"].bias * layer.scaling["default"]
            now = other.lora_B["default"].bias * other.scaling["default"]
            torch.testing.assert_close(now, was, rtol=1e-6, atol=1e-7)
