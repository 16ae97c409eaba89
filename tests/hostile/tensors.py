"""Tensors that do not go together, names that trick, and pickles."""

import os
import pickle
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from loramend.contracts.errors import ErrorCode
from tests.adapter.build import A_KEY, B_KEY, STEM, tensors
from tests.hostile.case import CONFIG, WEIGHTS, Case, adapter, archive, good_config, good_weights, safetensors
from tests.hostile.zips import Member, torch_file, zipped

KOHYA = "lora_unet_down_blocks_0"


def held(name: str, code: ErrorCode | None, config: dict[str, Any] | None = None, /, **more: Tensor) -> Case:
    """A sound adapter's tensors with others in their place or beside them."""
    named = {{"A": A_KEY, "B": B_KEY}.get(key, key): value for key, value in more.items()}
    return adapter(
        f"tensors-{name}", code, config=good_config(**config or {}), weights=save(tensors(**named))
    )


def only(
    name: str, code: ErrorCode | None, found: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> Case:
    """A file without a config."""
    return Case(f"tensors-{name}", code, "files", {WEIGHTS: save(found, metadata)})


def layer(stem: str, r: int = 2) -> dict[str, Tensor]:
    return {f"{stem}.lora_A.weight": torch.ones(r, 5), f"{stem}.lora_B.weight": torch.ones(6, r)}


def filled(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    A = torch.ones(2, 5, dtype=torch.float64)
    A[1, 4] = value
    return A.to(dtype)


def _raw(dtype: str, size: int) -> bytes:
    """Sound factors beside a tensor of a dtype that torch may not know."""
    floats = {"dtype": "F32", "shape": [2, 2]}
    header = {
        A_KEY: floats | {"data_offsets": [0, 16]},
        B_KEY: floats | {"data_offsets": [16, 32]},
        "x": {"dtype": dtype, "shape": [2], "data_offsets": [32, 32 + 2 * size]},
    }
    return safetensors(header, bytes(32 + 2 * size))


def _values() -> list[Case]:
    return [
        held("nan", "tensor_not_finite", A=filled(float("nan"))),
        held("infinity", "tensor_not_finite", B=torch.full((6, 2), float("inf"))),
        held("minus-infinity", "tensor_not_finite", A=filled(float("-inf"))),
        held("infinite-half", "tensor_not_finite", A=filled(1e6, torch.float16)),
        held("nan-bfloat", "tensor_not_finite", A=filled(float("nan"), torch.bfloat16)),
        held("nan-passed-through", "tensor_not_finite", extra=torch.tensor([float("nan")])),
        held(
            "nan-eight-bits",
            "tensor_not_finite",
            extra=torch.full((3,), float("nan")).to(torch.float8_e4m3fn),
        ),
        held("double-past-float", "tensor_not_finite", A=filled(1e300, torch.float64)),
        held("denormals", None, A=torch.full((2, 5), 1e-42)),
        held("denormal-doubles", None, A=filled(5e-324, torch.float64)),
        held("zeros", None, A=torch.zeros(2, 5), B=torch.zeros(6, 2)),
        held("largest-floats", None, A=torch.full((2, 5), torch.finfo(torch.float32).max)),
        held("mixed-dtypes", None, A=torch.ones(2, 5).half(), B=torch.ones(6, 2).bfloat16()),
        held("whole-numbers", "tensor_dtype_unsupported", A=torch.ones(2, 5, dtype=torch.int64)),
        held("eight-bit-factor", "tensor_dtype_unsupported", B=torch.ones(6, 2).to(torch.float8_e5m2)),
        held("booleans", "tensor_dtype_unsupported", A=torch.ones(2, 5, dtype=torch.bool)),
        held("complex", "tensor_dtype_unsupported", extra=torch.ones(2, dtype=torch.complex64)),
        adapter("tensors-unsigned-64", "tensor_dtype_unsupported", weights=_raw("U64", 8)),
        adapter("tensors-e8m0", "tensor_dtype_unsupported", weights=_raw("F8_E8M0", 1)),
    ]


def _shapes() -> list[Case]:
    return [
        adapter("tensors-unpaired-a", "tensor_unpaired", weights=save({A_KEY: torch.ones(2, 5)})),
        adapter("tensors-unpaired-b", "tensor_unpaired", weights=save({B_KEY: torch.ones(6, 2)})),
        adapter("tensors-none", "adapter_not_found", weights=save({"x": torch.ones(2)})),
        held("inner-sizes-differ", "tensor_shape_mismatch", B=torch.ones(6, 3)),
        held("transposed", "tensor_shape_mismatch", A=torch.ones(5, 2)),
        held("one-dimension", "tensor_shape_mismatch", A=torch.ones(10)),
        held("scalar", "tensor_shape_mismatch", B=torch.tensor(1.0)),
        held("empty-in", "tensor_shape_mismatch", A=torch.ones(2, 0)),
        held("empty-out", "tensor_shape_mismatch", B=torch.ones(0, 2)),
        held("empty-rank", "tensor_shape_mismatch", A=torch.ones(0, 5), B=torch.ones(6, 0)),
        held("five-dimensions", "tensor_shape_mismatch", A=torch.ones(2, 5, 1, 1, 1)),
        held("groups-do-not-divide", "tensor_shape_mismatch", A=torch.ones(2, 5, 3), B=torch.ones(5, 1, 1)),
        held("empty-passed-through", None, extra=torch.ones(0, 4)),
        adapter(
            "tensors-rank-past-the-cap",
            "limit_exceeded",
            config=good_config(r=5000),
            weights=save({A_KEY: torch.ones(5000, 1), B_KEY: torch.ones(1, 5000)}),
        ),
    ]


def _names() -> list[Case]:
    look_alike = {f"{STEM}.l\u043era_A.weight": torch.ones(2, 5), B_KEY: torch.ones(6, 2)}
    two = {f"{key[:-6]}{name}.weight": value for name in "ab" for key, value in tensors().items()}
    wrapped = f"{STEM}.base_layer"
    bias = f"{STEM}.lora_B.bias"
    mark = layer("base_model.model.<script>alert(1)</script>")
    up = layer("base_model.model.." + "./" * 20 + "etc")
    long = layer("base_model.model." + "a." * 240 + "q")
    return [
        adapter(
            "names-look-alike",
            "tensor_unpaired",
            weights=save(look_alike),
        ),
        adapter("names-with-markup", None, weights=save(mark)),
        adapter("names-like-paths", None, weights=save(up)),
        adapter("names-of-500", None, weights=save(long)),
        adapter("names-without-a-module", None, weights=save(layer("base_model.model."))),
        adapter(
            "names-of-two-adapters",
            "format_unsupported",
            weights=save(two),
        ),
        held("twice-by-wrapping", None, **layer(wrapped)),
        held("dora-vector", "config_unsupported", **{f"{STEM}.lora_magnitude_vector": torch.ones(6)}),
        held("loha", "peft_type_unsupported", **{f"{STEM}.hada_w1_a": torch.ones(6)}),
        held("variant", "config_unsupported", **{f"{STEM}.lora_C": torch.ones(6)}),
        held("bias-without-lora-bias", "config_invalid", **{bias: torch.ones(6)}),
        held(
            "bias-of-another-size",
            "tensor_shape_mismatch",
            {"lora_bias": True},
            **{bias: torch.ones(5)},
        ),
    ]


def _image_models() -> list[Case]:
    def kohya(name: str, code: ErrorCode | None, alpha: Tensor) -> Case:
        down = {f"{KOHYA}.lora_down.weight": torch.ones(2, 5), f"{KOHYA}.lora_up.weight": torch.ones(6, 2)}
        return only(f"alpha-{name}", code, down | {f"{KOHYA}.alpha": alpha})

    def settings(name: str, code: ErrorCode, text: str) -> Case:
        return only(f"settings-{name}", code, layer("unet." + "a" * 60), {"lora_adapter_metadata": text})

    explodes = r'{"unet.rank_pattern": {".*(a|a|aa)+b": 2}, "unet.r": 2}'
    return [
        kohya("nan", "tensor_not_finite", torch.tensor(float("nan"))),
        kohya("1e300", "config_invalid", torch.tensor(1e300, dtype=torch.float64)),
        kohya("2-62", "config_invalid", torch.tensor(2**62)),
        kohya("of-two", "tensor_shape_mismatch", torch.ones(2)),
        kohya("of-none", "tensor_shape_mismatch", torch.ones(0)),
        kohya("a-bool", "tensor_dtype_unsupported", torch.tensor(True)),
        settings("deep", "config_invalid", '{"unet.r":' + "[" * 20_000),
        settings("duplicate", "config_invalid", '{"unet.r": 2, "unet.r": 3}'),
        settings("explode", "limit_exceeded", explodes),
        settings("rank-lies", "tensor_shape_mismatch", '{"unet.r": 3}'),
        settings("dora", "config_unsupported", '{"unet.use_dora": true}'),
        only("unpaired-down", "tensor_unpaired", {f"{KOHYA}.lora_down.weight": torch.ones(2, 5)}),
    ]


class _Marker:
    """Unpickled, it makes a folder: a test sees that none was made."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/loramend-hostile-escaped",)


def _pickles() -> list[Case]:
    loaded = pickle.dumps({"lora_A": _Marker(), "more": list(range(40))}, 4)
    config = good_config()
    return [
        Case("pickle-bin", "pickle_refused", "files", {CONFIG: config, "adapter_model.bin": loaded}),
        Case("pickle-torch", "pickle_refused", "files", {CONFIG: config, "adapter_model.bin": torch_file()}),
        Case("pickle-upper-case", "pickle_refused", "files", {CONFIG: config, "ADAPTER.PT": loaded}),
        adapter("pickle-called-safetensors", "pickle_refused", weights=loaded),
        adapter("pickle-torch-called-safetensors", "pickle_refused", weights=torch_file()),
        archive(
            "pickle-in-a-zip",
            "pickle_refused",
            zipped([Member(b"a/adapter_model.bin", loaded)]),
        ),
        Case(
            "pickle-beside-weights",
            None,
            "files",
            {CONFIG: config, WEIGHTS: good_weights(), "training_args.bin": loaded},
        ),
    ]


def tensor_cases() -> list[Case]:
    return [*_values(), *_shapes(), *_names(), *_image_models(), *_pickles()]
