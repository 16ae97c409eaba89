"""The corners of peft's format: groups, parameters in unknown order, old keys, replicated layers, float16."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from loramend.adapter.check import check_folder
from loramend.adapter.read import read_adapter
from loramend.adapter.write import as_written, write_adapter
from loramend.contracts.errors import AdapterError
from tests.adapter import golden
from tests.adapter.compare import delta, distance, resized


def test_grouped_convolution_acts_as_peft_runs_it(tmp_path: Path) -> None:
    """peft cannot form its ΔW (get_delta_weight raises), so the layers' outputs are compared."""
    case = golden.Case(golden.Grouped, {"r": 4, "lora_alpha": 6, "target_modules": ["conv"]})
    model = golden.save(case, tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    assert list(adapter.updates) == ["conv[0]", "conv[1]"]
    assert "grouped_conv" in adapter.features
    dense = torch.cat([delta(update) for update in adapter.updates.values()]).reshape(6, 4, 3, 3)
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, 5)
    layer = model.base_model.model.conv
    with torch.no_grad():
        theirs = layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
    torch.testing.assert_close(torch.nn.functional.conv2d(x, dense), theirs, rtol=1e-5, atol=1e-5)
    changed = resized(adapter)
    write_adapter(changed, tmp_path / "out")
    loaded = golden.load(case, tmp_path / "out").base_model.model.conv
    dense = torch.cat([delta(update) for update in changed.updates.values()]).reshape(6, 4, 3, 3)
    with torch.no_grad():
        theirs = loaded.lora_B["default"](loaded.lora_A["default"](x)) * loaded.scaling["default"]
    torch.testing.assert_close(torch.nn.functional.conv2d(x, dense), theirs, rtol=1e-4, atol=1e-4)


def test_parameters_in_an_unknown_order_keep_their_place(tmp_path: Path) -> None:
    case = golden.Case(
        golden.OddMoe,
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": [],
            "target_parameters": ["experts.first", "experts.second"],
        },
    )
    model = golden.save(case, tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    assert "parameter_order" in adapter.features
    theirs = {name: tensor for name, tensor, _ in golden.deltas(model)}
    for expert in range(3):
        assert (
            distance(
                delta(adapter.updates[f"experts.parameter_0[{expert}]"]), theirs[f"experts.first[{expert}]"]
            )
            < 1e-6
        )
        assert (
            distance(
                delta(adapter.updates[f"experts.parameter_1[{expert}]"]), theirs[f"experts.second[{expert}]"]
            )
            < 1e-6
        )
    changed = resized(adapter)
    write_adapter(changed, tmp_path / "out")
    loaded = {name: tensor for name, tensor, _ in golden.deltas(golden.load(case, tmp_path / "out"))}
    for expert in range(3):
        assert (
            distance(
                delta(changed.updates[f"experts.parameter_1[{expert}]"]), loaded[f"experts.second[{expert}]"]
            )
            < 1e-6
        )


def test_keys_with_the_adapters_name_are_read_and_written_without(tmp_path: Path) -> None:
    case = golden.CASES["embedding"]
    model = golden.save(case, tmp_path / "in")
    weights = tmp_path / "in" / "adapter_model.safetensors"
    named = {}
    for key, tensor in load_file(weights).items():
        if "lora_embedding" in key:
            key = f"{key}.default"
        named[key.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.")] = tensor
    save_file(named, weights)
    adapter = read_adapter(tmp_path / "in")
    for name, theirs, _ in golden.deltas(model):
        assert distance(delta(adapter.updates[name]), theirs) < 1e-6
    write_adapter(adapter, tmp_path / "out")
    golden.load(case, tmp_path / "out")


def test_experts_saved_as_single_layers_still_convert_in_peft(tmp_path: Path) -> None:
    """A Mixtral adapter from before transformers 5, with linear experts: peft fuses them at load."""
    torch.manual_seed(0)
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["w1", "w2", "w3", "gate", "q_proj"],
    }
    tensors = {}
    for expert in range(3):
        for layer, width, out in (("w1", 16, 12), ("w2", 12, 16), ("w3", 16, 12)):
            stem = f"base_model.model.model.layers.0.block_sparse_moe.experts.{expert}.{layer}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(2, width)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(out, 2)
    for layer, out in (("block_sparse_moe.gate", 3), ("self_attn.q_proj", 16)):
        stem = f"base_model.model.model.layers.0.{layer}"
        tensors[f"{stem}.lora_A.weight"] = torch.randn(2, 16)
        tensors[f"{stem}.lora_B.weight"] = torch.randn(out, 2)
    (tmp_path / "in").mkdir()
    save_file(tensors, tmp_path / "in" / "adapter_model.safetensors")
    (tmp_path / "in" / "adapter_config.json").write_text(json.dumps(config))
    adapter = read_adapter(tmp_path / "in")
    assert len(adapter.updates) == 11
    assert "model.layers.0.block_sparse_moe.experts.2.w3" in adapter.updates
    write_adapter(adapter, tmp_path / "out")
    # A repair may leave different ranks; peft takes but one for what it fuses.
    some = {
        name: update.with_factors(
            torch.cat([update.B, 0 * update.B], 1), torch.cat([update.A, update.A]), update.scale
        )
        for name, update in list(adapter.updates.items())[::2]
    }
    write_adapter(adapter.with_updates(some), tmp_path / "uneven")
    case = golden.CASES["two_parameters"]

    def loaded(folder: Path) -> PeftModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PeftModel.from_pretrained(golden.base_model(case), folder)

    fused = loaded(tmp_path / "in")
    before = {name: tensor for name, tensor, _ in golden.deltas(fused)}
    assert len(before) == 8
    for folder in ("out", "uneven"):
        after = {name: tensor for name, tensor, _ in golden.deltas(loaded(tmp_path / folder))}
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            assert tensor.norm() > 0
            assert distance(after[name], tensor) < 1e-6
    # What peft saves then: fused parameters, targets without dots, and patterns of its own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fused.save_pretrained(tmp_path / "fused")
    again = read_adapter(tmp_path / "fused")
    assert again.updates.keys() == before.keys()
    for name, tensor in before.items():
        assert distance(delta(again.updates[name]), tensor) < 1e-6


def test_layer_replication_is_read_and_marked(tmp_path: Path) -> None:
    case = golden.Case(
        golden.llama,
        {"r": 2, "lora_alpha": 4, "target_modules": golden.QV, "layer_replication": [[0, 2], [0, 2]]},
    )
    model = golden.save(case, tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    assert "layer_replication" in adapter.features
    assert {name for name, _, _ in golden.deltas(model)} == set(adapter.updates)
    write_adapter(adapter, tmp_path / "out")
    golden.load(case, tmp_path / "out")


def test_tied_embedding_factors_are_refused(tmp_path: Path) -> None:
    case = golden.CASES["embedding"]
    golden.save(case, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ensure_weight_tying": True}))
    with pytest.raises(AdapterError, match="ensure_weight_tying") as caught:
        check_folder(tmp_path)
    assert caught.value.code == "config_unsupported"


@pytest.mark.parametrize("size", [1e-6, 1e4])
def test_float16_factors_are_balanced(size: float, tmp_path: Path) -> None:
    case = golden.CASES["float16"]
    golden.save(case, tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    changed = {
        name: replace(update, A=update.A / size, B=update.B, scale=size)
        for name, update in adapter.updates.items()
    }
    write_adapter(adapter.with_updates(changed), tmp_path / "out")
    for name, update in read_adapter(tmp_path / "out").updates.items():
        assert distance(delta(update), delta(changed[name])) < 1e-3


@pytest.mark.parametrize(("case", "scale"), [("float16", 1e12), ("float64", 1e40)])
def test_factors_beyond_their_dtype_are_an_error(case: str, scale: float, tmp_path: Path) -> None:
    golden.save(golden.CASES[case], tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    changed = {name: replace(update, scale=scale) for name, update in adapter.updates.items()}
    with pytest.raises(AdapterError) as caught:
        write_adapter(adapter.with_updates(changed), tmp_path / "out")
    assert caught.value.code == "tensor_not_finite"


@pytest.mark.parametrize("name", ["patterns", "embedding", "conv", "two_parameters", "float16", "lora_bias"])
def test_as_written_is_what_the_file_says(name: str, tmp_path: Path) -> None:
    golden.save(golden.CASES[name], tmp_path / "in")
    adapter = resized(read_adapter(tmp_path / "in"))
    write_adapter(adapter, tmp_path / "out")
    measured = as_written(adapter)
    for name, update in read_adapter(tmp_path / "out").updates.items():
        other = measured.updates[name]
        assert torch.equal(update.A, other.A)
        assert torch.equal(update.B, other.B)
        assert update.scale == other.scale == 1.0
    assert write_adapter(measured, tmp_path / "again") == write_adapter(adapter, tmp_path / "out")
