"""Against peft itself: scales and deltas as read, and as peft reads what is written."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from loramend.adapter.check import check_folder
from loramend.adapter.model import Adapter, Update
from loramend.adapter.read import read_adapter
from loramend.adapter.write import write_adapter
from loramend.contracts.errors import AdapterError
from tests.adapter import golden

# One rounding of each entry to the file's dtype, in A and in B.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def delta(update: Update) -> Tensor:
    return update.scale * update.B @ update.A


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


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


def resized(adapter: Adapter) -> Adapter:
    """Every update with random factors of another rank and scale."""
    torch.manual_seed(5)
    changed = {}
    for index, (name, update) in enumerate(adapter.updates.items()):
        rank = 1 + (3 * index) % 7
        out, width = update.shape
        dtype = update.A.dtype
        changed[name] = update.with_factors(
            torch.randn(out, rank, dtype=dtype), torch.randn(rank, width, dtype=dtype), 0.3 + index
        )
    return adapter.with_updates(changed)


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


def test_factors_beyond_their_dtype_are_an_error(tmp_path: Path) -> None:
    golden.save(golden.CASES["float16"], tmp_path / "in")
    adapter = read_adapter(tmp_path / "in")
    changed = {name: replace(update, scale=1e12) for name, update in adapter.updates.items()}
    with pytest.raises(AdapterError) as caught:
        write_adapter(adapter.with_updates(changed), tmp_path / "out")
    assert caught.value.code == "tensor_not_finite"
