"""Configs that lie, or ask for what costs too much."""

import json
from typing import Any

import torch
from safetensors.torch import save

from loramend.adapter.limits import MiB
from loramend.contracts.errors import ErrorCode
from tests.hostile.case import WEIGHTS, Case, adapter, good_config, good_weights

# Takes Python's `re` exponential time on a name of many letters that ends otherwise.
EXPLODES = r"(\w+_?)+\d"
MODULE = "model.layers.0.self_attn." + "a" * 60
EXPERTS = "base_model.model.model.layers.0.mlp.experts"


def changed(name: str, code: ErrorCode | None, **more: Any) -> Case:
    return adapter(f"config-{name}", code, config=good_config(**more))


def text(name: str, code: ErrorCode, content: bytes) -> Case:
    return adapter(f"config-{name}", code, config=content)


def slow(name: str, code: ErrorCode | None, **more: Any) -> Case:
    """Beside a module whose name patterns stumble over."""
    stem = f"base_model.model.{MODULE}"
    tensors = {f"{stem}.lora_A.weight": torch.ones(2, 5), f"{stem}.lora_B.weight": torch.ones(6, 2)}
    return adapter(f"config-{name}", code, config=good_config(**more), weights=save(tensors))


def _parameters(name: str, code: ErrorCode, rows: int = 2, **more: Any) -> Case:
    """Beside an expert layer."""

    def weights() -> bytes:
        A, B = torch.ones(rows, 2), torch.ones(4, rows)
        return save({f"{EXPERTS}.lora_A.weight": A, f"{EXPERTS}.lora_B.weight": B})

    return adapter(f"config-{name}", code, config=good_config(**more), weights=weights)


def _no_json() -> list[Case]:
    nested = {"a": json.loads("[" * 65 + "]" * 65)}
    return [
        text("empty", "config_invalid", b""),
        text("array", "config_invalid", b"[]"),
        text("null", "config_invalid", b"null"),
        text("not-json", "config_invalid", b"{'r': 2}"),
        text("not-utf8", "config_invalid", b'{"\xff": 1}'),
        text("byte-order-mark", "config_invalid", b"\xef\xbb\xbf" + good_config()),
        text("cut", "config_invalid", good_config()[:-10]),
        text("two-objects", "config_invalid", good_config() + b"{}"),
        text("deep", "config_invalid", b'{"auto_mapping":' + b"[" * 100_000),
        changed("deep-but-parsed", "config_invalid", auto_mapping=nested),
        text("duplicate-key", "config_invalid", good_config()[:-1] + b', "r": 64}'),
        text("duplicate-inside", "config_invalid", b'{"a": {"b": 1, "b": 2}}'),
        text("nan", "config_invalid", good_config(lora_alpha=float("nan"))),
        text("infinity", "config_invalid", good_config(lora_alpha=float("-inf"))),
        text("endless-number", "config_invalid", b'{"r": ' + b"9" * 5000 + b"}"),
        text("surrogate", "config_invalid", good_config(base_model_name_or_path="\ud800")),
        text("too-long", "limit_exceeded", good_config() + b" " * 4 * MiB),
        Case("config-missing", "config_invalid", "files", {WEIGHTS: good_weights()}),
    ]


def _numbers() -> list[Case]:
    return [
        changed("r-0", "config_invalid", r=0),
        changed("r-negative", "config_invalid", r=-2),
        changed("r-2-63", "config_invalid", r=2**63),
        changed("r-a-string", "config_invalid", r="2"),
        changed("r-a-float", "config_invalid", r=2.0),
        changed("r-a-bool", "config_invalid", r=True),
        changed("r-null", "config_invalid", r=None),
        changed("r-a-list", "config_invalid", r=[2]),
        changed("rank-too-high", "tensor_shape_mismatch", r=64),
        changed("rank-too-low", "tensor_shape_mismatch", r=1),
        changed("rank-pattern-lies", "tensor_shape_mismatch", rank_pattern={"q_proj": 3}),
        changed("rank-pattern-negative", "config_invalid", rank_pattern={"q_proj": -2}),
        changed("rank-pattern-a-list", "config_invalid", rank_pattern=["q_proj"]),
        _parameters("r-past-any-float", "config_invalid", target_parameters=["experts.x"], r=10**400),
        _parameters("r-for-no-expert", "tensor_shape_mismatch", target_parameters=["experts.x"], r=2**31 - 1),
        _parameters(
            "a-million-experts", "limit_exceeded", rows=100_001, target_parameters=["experts.x"], r=1
        ),
        text("alpha-overflows", "config_invalid", b'{"peft_type": "LORA", "r": 2, "lora_alpha": 1e999}'),
        changed("alpha-1e300", "config_invalid", lora_alpha=1e300),
        changed("alpha-huge-whole", "config_invalid", lora_alpha=10**400),
        changed("alpha-a-string", "config_invalid", lora_alpha="16"),
        changed("alpha-a-list", "config_invalid", lora_alpha=[16]),
        changed("alpha-pattern-huge", "config_invalid", alpha_pattern={"q_proj": 1e30}),
        changed("alpha-denormal", None, lora_alpha=5e-324),
    ]


def _patterns() -> list[Case]:
    many = [f"experts.{index}" for index in range(500)]
    counted = "(?:(?:a{1000}){1000}){1000}"
    return [
        slow("rank-pattern-explodes", "limit_exceeded", rank_pattern={"model.*(a|a|aa)+b": 2}),
        slow("alpha-pattern-explodes", "limit_exceeded", alpha_pattern={"model.*(a|aa|a_?)+[0-9]": 2}),
        slow("pattern-explodes-elsewhere", None, rank_pattern={EXPLODES: 2}),
        slow("many-patterns-explode", "limit_exceeded", rank_pattern={f"(a*)*{i}": 2 for i in range(9000)}),
        changed("pattern-counts", "limit_exceeded", rank_pattern={counted: 2}),
        changed("pattern-counts-spaced", "limit_exceeded", rank_pattern={"(?x:(?:a{1 0000}){1 0000})": 2}),
        changed("pattern-too-long", "limit_exceeded", alpha_pattern={"a" * 513: 2}),
        changed("patterns-too-many", "limit_exceeded", rank_pattern={str(i): 2 for i in range(10_001)}),
        changed("pattern-broken", "config_invalid", rank_pattern={"(": 2}),
        changed("pattern-flags", "config_invalid", rank_pattern={"(?i)Q_PROJ": 2}),
        changed("pattern-count-past-all", "limit_exceeded", rank_pattern={"a{99999999999999}": 2}),
        changed("pattern-deep", "config_invalid", rank_pattern={"(" * 250 + ")" * 249: 2}),
        slow("target-modules-explodes", None, target_modules=EXPLODES),
        slow("exclude-modules-explodes", None, exclude_modules=EXPLODES),
        slow("layers-pattern-explodes", None, layers_pattern=EXPLODES, layers_to_transform=[0]),
        changed("target-modules-nested", "config_invalid", target_modules=[["q_proj"]]),
        changed("target-modules-an-object", "config_invalid", target_modules={"q_proj": 1}),
        _parameters("target-parameters-many", "limit_exceeded", target_parameters=many),
        _parameters("target-parameters-thousands", "config_invalid", target_parameters=["x"] * 2001),
    ]


def _features() -> list[Case]:
    evil = {"parent_library": "os", "base_model_class": "system"}
    return [
        changed("dora", "config_unsupported", use_dora=True),
        changed("dora-by-a-word", "config_unsupported", use_dora="false"),
        changed("pissa", "config_unsupported", init_lora_weights="pissa_niter_4"),
        changed("loftq", "config_unsupported", init_lora_weights="loftq"),
        changed("init-an-object", "config_unsupported", init_lora_weights={"a": 1}),
        changed("alora", "config_unsupported", alora_invocation_tokens=[1]),
        changed("megatron", "config_unsupported", megatron_config={"a": 1}),
        changed("unknown-key", "config_unsupported", scale_everything_by=9),
        changed("trust-remote-code", "config_unsupported", trust_remote_code=True),
        changed("unknown-key-with-markup", "config_unsupported", **{"<img src=x onerror=alert(1)>": 1}),
        changed("unknown-key-with-control", "config_unsupported", **{"\x1b]0;x\x07": 1}),
        changed("auto-mapping", None, auto_mapping=evil),
        changed("base-with-markup", None, base_model_name_or_path="<script>alert(1)</script>"),
        changed("base-a-path", None, base_model_name_or_path="../../../../etc/passwd"),
        changed("base-a-number", None, base_model_name_or_path=7),
        changed("type-loha", "peft_type_unsupported", peft_type="LOHA"),
        changed("type-lower-case", "peft_type_unsupported", peft_type="lora"),
        changed("type-a-look-alike", "peft_type_unsupported", peft_type="L\u039fRA"),
        changed("type-missing", "config_invalid", peft_type=None),
        changed("type-a-list", "config_invalid", peft_type=["LORA"]),
        changed("bias-unknown", "config_invalid", bias="some"),
        changed("flag-a-word", "config_invalid", use_rslora="yes"),
    ]


def configs() -> list[Case]:
    return [*_no_json(), *_numbers(), *_patterns(), *_features()]
