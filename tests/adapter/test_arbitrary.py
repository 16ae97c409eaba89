"""Any config beside any tensors: refused with an AdapterError, or read, written and read the same."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from loramend.adapter.check import check_folder
from loramend.adapter.read import read_adapter
from loramend.adapter.write import write_adapter
from loramend.contracts.errors import AdapterError
from tests.adapter import build
from tests.adapter.compare import delta

STEMS = [
    "base_model.model.a.q_proj",
    "base_model.model.a.experts",
    "base_model.model.a.experts.base_layer",
    "base_model.model.attn",
    "base_model.model.attn.base_layer.out_proj",
    "unet.a.to_q",
    "lora_unet_a_to_q",
    "",
    "lora_A",
]
ENDS = [
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_A.default.weight",
    ".lora_B.bias",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_down.weight",
    ".lora_up.weight",
    ".alpha",
    ".weight",
    ".lora_magnitude_vector",
]
PAIRS = [(".lora_A.weight", ".lora_B.weight")] * 3 + [(".lora_down.weight", ".lora_up.weight")]
SIZES = st.sampled_from([1, 2, 2, 2, 3, 4, 6])
SHAPES = st.lists(SIZES, max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    found: dict[str, list[int]] = {}
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        found[draw(st.sampled_from(STEMS)) + draw(st.sampled_from(ENDS))] = draw(SHAPES)
    a_end, b_end = draw(st.sampled_from(PAIRS))
    for stem in draw(st.lists(st.sampled_from(STEMS), max_size=3, unique=True)):
        r, count = draw(st.sampled_from([1, 2, 2])), draw(st.sampled_from([1, 1, 2]))
        kernel = draw(st.sampled_from([[], [], [3], [1, 1]]))
        found[stem + a_end] = [r * (1 if kernel else count), draw(SIZES), *kernel]
        found[stem + b_end] = [2 * draw(SIZES), r * (1 if kernel else count), *(1 for _ in kernel)]
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16]))
    return {name: torch.randn(shape).to(dtype) for name, shape in found.items() if name}


CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "r": st.sampled_from([2, 2, 2, 2, 2, 1, 3, 0, "2"]),
        "lora_alpha": st.sampled_from([2, 3, 4, 5, 0, -1.5, "3"]),
        "use_rslora": st.booleans(),
        "lora_bias": st.booleans(),
        "fan_in_fan_out": st.booleans(),
        "rank_pattern": st.sampled_from(
            [{}, {}, None, {"q_proj": 1}, {".*": 2}, {".*": 2}, {"(": 1}, {"q": 0}]
        ),
        "alpha_pattern": st.sampled_from([{}, {"a.*": 5}, {"experts.(x|y)": 2}, {"attn": 1}, 3]),
        "target_modules": st.sampled_from([["q_proj"], ["attn", "q_proj"], "all-linear", None, [], 3]),
        "target_parameters": st.sampled_from(
            [None, ["experts.x"], ["experts.x", "experts.y"], ["gate_up_proj", "down_proj"], ["x"]]
        ),
        "init_lora_weights": st.sampled_from([True, True, "gaussian", "eva", "pissa"]),
        "novel": st.sampled_from([None, None, None, None, 1]),
    },
)


@given(tensors=tensors(), changes=CONFIGS, with_config=st.sampled_from([True, True, True, False]))
@settings(max_examples=150)
def test_refused_or_the_same_after_writing(
    tensors: dict[str, Tensor], changes: dict[str, Any], with_config: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "in"
        folder.mkdir()
        build.write(folder, build.config(**changes) if with_config else None, {})
        save_file(tensors, folder / "adapter_model.safetensors")
        try:
            header = check_folder(folder)
        except AdapterError:
            return
        adapter = read_adapter(folder)
        assert header.modules == len(adapter.updates) > 0
        write_adapter(adapter, Path(temporary) / "out")
        again = read_adapter(Path(temporary) / "out")
        assert again.updates.keys() == adapter.updates.keys()
        assert again.passthrough.keys() == adapter.passthrough.keys()
        for name, update in adapter.updates.items():
            other = again.updates[name]
            tolerance = 1e-5 if update.dtype == torch.float32 else 2e-2
            torch.testing.assert_close(delta(other), delta(update), rtol=tolerance, atol=tolerance)
