"""kohya's and diffusers' files: read, and written back in the same style."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from loramend.adapter.capability import subspace_blockers
from loramend.adapter.check import check_folder
from loramend.adapter.limits import Limits
from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.adapter.write import write_adapter
from loramend.contracts.errors import AdapterError

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"


def kohya() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        f"{UNET}.lora_down.weight": torch.randn(4, 6),
        f"{UNET}.lora_up.weight": torch.randn(5, 4),
        f"{UNET}.alpha": torch.tensor(1.0),
        f"{TEXT}.lora_down.weight": torch.randn(2, 3, dtype=torch.float16),
        f"{TEXT}.lora_up.weight": torch.randn(4, 2, dtype=torch.float16),
        "lora_unet_conv_in.lora_down.weight": torch.randn(3, 4, 3, 3),
        "lora_unet_conv_in.lora_up.weight": torch.randn(6, 3, 1, 1),
        "lora_unet_conv_in.alpha": torch.tensor([0.0], dtype=torch.bfloat16),
        "lora_unet_out.diff": torch.randn(4),
    }


def diffusers() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "unet.mid.attn1.to_q.lora_A.weight": torch.randn(4, 6),
        "unet.mid.attn1.to_q.lora_B.weight": torch.randn(5, 4),
        "unet.mid.attn1.to_k.lora_A.weight": torch.randn(4, 6),
        "unet.mid.attn1.to_k.lora_B.weight": torch.randn(5, 4),
        "text_encoder.layers.0.q_proj.lora_A.weight": torch.randn(2, 6),
        "text_encoder.layers.0.q_proj.lora_B.weight": torch.randn(5, 2),
    }


def write(folder: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "style.safetensors", metadata=metadata or None)
    return folder


def settings(**more: object) -> str:
    return json.dumps({key.replace("__", "."): value for key, value in more.items()})


def refusal(folder: Path) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        check_folder(folder)
    return caught.value


def kohya_delta(tensors: dict[str, Tensor], stem: str) -> Tensor:
    """ΔW as kohya's networks/lora.py merges it."""
    down, up = tensors[f"{stem}.lora_down.weight"].float(), tensors[f"{stem}.lora_up.weight"].float()
    alpha = float(tensors[f"{stem}.alpha"].item()) if f"{stem}.alpha" in tensors else 0.0
    scale = (alpha or down.shape[0]) / down.shape[0]
    if down.ndim == 4:
        return scale * torch.nn.functional.conv2d(down.permute(1, 0, 2, 3), up).permute(1, 0, 2, 3)
    return scale * up @ down


def test_kohya_is_read_as_kohya_merges_it(tmp_path: Path) -> None:
    tensors = kohya()
    folder = write(tmp_path, tensors)
    adapter = read_adapter(folder)
    assert adapter.format == "kohya"
    assert adapter.config == {}
    assert set(adapter.updates) == {UNET, TEXT, "lora_unet_conv_in"}
    assert list(adapter.passthrough) == ["lora_unet_out.diff"]
    for name, update in adapter.updates.items():
        expected = kohya_delta(tensors, name)
        ours = update.scale * update.B @ update.A
        torch.testing.assert_close(ours, expected.reshape(ours.shape), rtol=1e-5, atol=1e-6)
    header = check_folder(folder)
    assert (header.modules, header.base_model, header.files) == (3, None, ["style.safetensors"])
    assert subspace_blockers(header.features) == []


def changed(adapter: Adapter) -> Adapter:
    torch.manual_seed(1)
    updates = {}
    for index, (name, update) in enumerate(adapter.updates.items()):
        out, width = update.shape
        rank = 2 + 2 * index
        updates[name] = update.with_factors(torch.randn(out, rank), torch.randn(rank, width), 0.5 + index)
    return adapter.with_updates(updates)


def test_kohya_is_written_as_kohya_merges_it(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "in",
        kohya(),
        ss_network_dim="4",
        ss_network_alpha="1",
        sshs_model_hash="old",
        ss_note="kept",
    )
    adapter = changed(read_adapter(folder))
    (file,) = write_adapter(adapter, tmp_path / "out")
    assert file.path == "style.safetensors"
    written = load_file(tmp_path / "out" / "style.safetensors")
    assert written.keys() == kohya().keys()
    for name, update in adapter.updates.items():
        expected = update.scale * update.B @ update.A
        ours = kohya_delta(written, name)
        assert (ours.reshape(expected.shape) - expected).norm() < 2e-3 * expected.norm()
        assert written[f"{name}.lora_down.weight"].dtype == update.dtype
    assert torch.equal(written["lora_unet_out.diff"], kohya()["lora_unet_out.diff"])
    with safe_open(tmp_path / "out" / "style.safetensors", "pt") as opened:
        metadata = opened.metadata()
    assert metadata == {"ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic", "ss_note": "kept"}


def test_diffusers_without_settings_has_scale_one(tmp_path: Path) -> None:
    adapter = read_adapter(write(tmp_path, diffusers()))
    assert adapter.format == "diffusers"
    assert {update.scale for update in adapter.updates.values()} == {1.0}
    assert adapter.updates["unet.mid.attn1.to_q"].weight == "mid.attn1.to_q.weight"
    assert subspace_blockers(adapter.features) == []


def test_diffusers_settings_give_the_scale(tmp_path: Path) -> None:
    text = settings(
        unet__r=4,
        unet__lora_alpha=8,
        unet__alpha_pattern={"to_k": 2},
        text_encoder__r=2,
        text_encoder__lora_alpha=3,
        text_encoder__use_rslora=True,
    )
    adapter = read_adapter(write(tmp_path / "in", diffusers(), lora_adapter_metadata=text))
    scales = {name: update.scale for name, update in adapter.updates.items()}
    assert scales == {
        "unet.mid.attn1.to_q": 2.0,
        "unet.mid.attn1.to_k": 0.5,
        "text_encoder.layers.0.q_proj": 3 / 2**0.5,
    }
    write_adapter(changed(adapter), tmp_path / "out")
    with safe_open(tmp_path / "out" / "style.safetensors", "pt") as opened:
        after = json.loads(opened.metadata()["lora_adapter_metadata"])
    again = read_adapter(tmp_path / "out")
    for name, update in changed(adapter).updates.items():
        ours = again.updates[name]
        torch.testing.assert_close(
            ours.scale * ours.B @ ours.A, update.scale * update.B @ update.A, rtol=1e-5, atol=1e-5
        )
        owner = name.partition(".")[0]
        assert after[f"{owner}.r"] == after[f"{owner}.lora_alpha"] == ours.rank
    assert after["unet.alpha_pattern"] == {}


def test_a_components_modules_share_a_rank(tmp_path: Path) -> None:
    adapter = changed(read_adapter(write(tmp_path / "in", diffusers())))
    write_adapter(adapter, tmp_path / "out")
    again = read_adapter(tmp_path / "out")
    ranks: dict[str, set[int]] = {}
    for name, update in again.updates.items():
        ranks.setdefault(name.partition(".")[0], set()).add(update.rank)
        before = adapter.updates[name]
        assert update.scale == 1.0
        torch.testing.assert_close(
            update.B @ update.A, before.scale * before.B @ before.A, rtol=1e-5, atol=1e-5
        )
    assert all(len(found) == 1 for found in ranks.values())


@pytest.mark.parametrize(
    ("down", "up", "weight"),
    [
        (
            "unet.mid.attn1.to_q.lora.down.weight",
            "unet.mid.attn1.to_q.lora.up.weight",
            "mid.attn1.to_q.weight",
        ),
        (
            "unet.mid.attn1.processor.to_q_lora.down.weight",
            "unet.mid.attn1.processor.to_q_lora.up.weight",
            "mid.attn1.to_q.weight",
        ),
        (
            "unet.mid.attn1.processor.to_out_lora.down.weight",
            "unet.mid.attn1.processor.to_out_lora.up.weight",
            "mid.attn1.to_out.0.weight",
        ),
        (
            "text_encoder.layers.0.q_proj.lora_linear_layer.down.weight",
            "text_encoder.layers.0.q_proj.lora_linear_layer.up.weight",
            "layers.0.q_proj.weight",
        ),
    ],
)
def test_older_diffusers_keys(down: str, up: str, weight: str, tmp_path: Path) -> None:
    tensors = {down: torch.randn(2, 4), up: torch.randn(3, 2)}
    adapter = read_adapter(write(tmp_path / "in", tensors))
    (update,) = adapter.updates.values()
    assert (adapter.format, update.weight, update.shape) == ("diffusers", weight, (3, 4))
    write_adapter(adapter, tmp_path / "out")
    assert load_file(tmp_path / "out" / "style.safetensors").keys() == tensors.keys()


def test_a_lora_bias_of_a_diffusers_file_keeps_its_effect(tmp_path: Path) -> None:
    key = "unet.mid.attn1.to_q.lora_B.bias"
    tensors = diffusers() | {key: torch.arange(5.0), "unet.mid.attn1.to_q.alpha": torch.tensor(8.0)}
    adapter = read_adapter(write(tmp_path / "in", tensors))
    write_adapter(changed(adapter), tmp_path / "out")
    written = load_file(tmp_path / "out" / "style.safetensors")
    assert torch.equal(written[key], 2 * torch.arange(5.0))
    rank = float(written["unet.mid.attn1.to_q.lora_A.weight"].shape[0])
    assert written["unet.mid.attn1.to_q.alpha"].item() == rank


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        (
            {f"{UNET}.hada_w1_a": torch.ones(2, 2), f"{UNET}.alpha": torch.tensor(1.0)},
            "peft_type_unsupported",
        ),
        ({f"{UNET}.lokr_w1": torch.ones(2, 2)}, "peft_type_unsupported"),
        (kohya() | {f"{UNET}.dora_scale": torch.ones(5, 1)}, "config_unsupported"),
        (kohya() | {f"{UNET}.lora_mid.weight": torch.ones(4, 4, 3, 3)}, "config_unsupported"),
        (kohya() | diffusers(), "format_unsupported"),
        (
            kohya() | {f"{UNET}.lora_A.weight": torch.ones(2, 2), f"{UNET}.lora_B.weight": torch.ones(2, 2)},
            "format_unsupported",
        ),
        ({f"{UNET}.lora_up.weight": torch.ones(2, 2)}, "tensor_unpaired"),
        (kohya() | {f"{UNET}.lora_up.weight": torch.ones(5, 3)}, "tensor_shape_mismatch"),
        (kohya() | {f"{UNET}.alpha": torch.ones(3)}, "tensor_shape_mismatch"),
        (kohya() | {f"{UNET}.alpha": torch.tensor(True)}, "tensor_dtype_unsupported"),
        (
            kohya() | {f"{UNET}.lora_up.weight": torch.ones(5, 4, dtype=torch.int8)},
            "tensor_dtype_unsupported",
        ),
        ({"some.weight": torch.ones(2)}, "adapter_not_found"),
        (
            diffusers()
            | {"unet.x.lora_A.weight": torch.ones(3, 6), "unet.x.lora_B.weight": torch.ones(5, 3)},
            "config_unsupported",
        ),
    ],
)
def test_refusals(tensors: dict[str, Tensor], code: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, tensors)).code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "config_invalid"),
        (settings(unet__r="x"), "config_invalid"),
        (settings(unet__r=3), "tensor_shape_mismatch"),
        (settings(unet__r=4, unet__use_dora=True), "config_unsupported"),
        (settings(unet__r=4, unet__init_lora_weights="pissa"), "config_unsupported"),
    ],
)
def test_refused_settings(text: str, code: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, diffusers(), lora_adapter_metadata=text)).code == code


def test_all_modules_share_the_time_patterns_have(tmp_path: Path) -> None:
    """Each name takes the pattern some hundredths of a second, and no name all the time there is."""
    tensors = {}
    for index in range(200):
        stem = f"unet.m{index}." + "a" * 12
        tensors |= {f"{stem}.lora_A.weight": torch.ones(2, 3), f"{stem}.lora_B.weight": torch.ones(3, 2)}
    text = settings(unet__r=2, unet__rank_pattern={".*(a|a|aa)+b": 2})
    folder = write(tmp_path, tensors, lora_adapter_metadata=text)
    with pytest.raises(AdapterError) as caught:
        check_folder(folder, Limits(pattern_seconds=0.5))
    assert caught.value.code == "limit_exceeded"


def test_nan_in_an_alpha(tmp_path: Path) -> None:
    folder = write(tmp_path, kohya() | {f"{UNET}.alpha": torch.tensor(float("nan"))})
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder)
    assert caught.value.code == "tensor_not_finite"
