import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils.peft_types import PeftType

from loramend.adapter.capability import (
    HANDLED,
    KEPT,
    REFUSED,
    check_config,
    subspace_blockers,
)
from loramend.adapter.check import check_folder
from loramend.contracts.errors import AdapterError
from tests.adapter import build


def refused(config: dict[str, Any]) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        check_config(config, "adapter_config.json")
    return caught.value


def test_every_field_of_peft_stands_in_one_table() -> None:
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields - HANDLED - KEPT - REFUSED.keys() == set()
    assert not HANDLED & KEPT
    assert not (HANDLED | KEPT) & REFUSED.keys()


def test_pefts_defaults_are_accepted() -> None:
    config = LoraConfig(target_modules=["q_proj"]).to_dict()
    config["target_modules"] = list(config["target_modules"])
    check_config(json.loads(json.dumps(config)), "adapter_config.json")


VARIANTS: list[tuple[str, object, str]] = [
    ("use_dora", True, "DoRA"),
    ("alora_invocation_tokens", [1, 2], "alora"),
    ("arrow_config", {"top_k": 2}, "Arrow"),
    ("use_bdlora", {"nblocks": 2}, "BD-LoRA"),
    ("kasa_config", {"beta": 0.1}, "KaSA"),
    ("monteclora_config", {"num_samples": 2}, "MonteCLoRA"),
    ("velora_config", {"num_groups": 2}, "VeLoRA"),
    ("use_qalora", True, "QALoRA"),
    ("megatron_config", {"x": 1}, "Megatron"),
]


@pytest.mark.parametrize(("key", "value", "name"), VARIANTS)
def test_variants_are_refused_by_name(key: str, value: object, name: str) -> None:
    error = refused(build.config(**{key: value}))
    assert error.code == "config_unsupported"
    assert error.where == f"adapter_config.json#/{key}"
    assert name in error.detail
    assert key in error.detail
    assert "convert_to_lora" in error.detail or key == "use_dora"
    check_config(build.config(**{key: None}), "adapter_config.json")
    assert key in REFUSED


def test_the_refused_are_all_tried() -> None:
    assert {key for key, _, _ in VARIANTS} == REFUSED.keys()


@pytest.mark.parametrize(
    ("init", "name"),
    [
        ("pissa", "PiSSA"),
        ("pissa_niter_16", "PiSSA"),
        ("olora", "OLoRA"),
        ("OLoRA", "OLoRA"),
        ("corda", "CorDA"),
        ("lora_ga", "LoRA-GA"),
        ("loftq", "LoftQ"),
    ],
)
def test_initialisations_that_change_the_base_are_refused(init: str, name: str) -> None:
    error = refused(build.config(init_lora_weights=init))
    assert error.code == "config_unsupported"
    assert name in error.detail
    assert ("path_initial_model_for_weight_conversion" in error.detail) == (name != "LoftQ")


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_other_initialisations_are_taken(init: object) -> None:
    check_config(build.config(init_lora_weights=init), "adapter_config.json")


@pytest.mark.parametrize("init", ["novel", 3, ["pissa"]])
def test_unknown_initialisations_are_refused(init: object) -> None:
    assert refused(build.config(init_lora_weights=init)).code == "config_unsupported"


@pytest.mark.parametrize("kind", [kind.value for kind in PeftType if kind != PeftType.LORA])
def test_other_types_are_refused_by_name(kind: str) -> None:
    error = refused(build.config(peft_type=kind))
    assert error.code == "peft_type_unsupported"
    assert kind in error.detail
    assert "convert_to_lora" in error.detail


@pytest.mark.parametrize("kind", [None, "", 3, ["LORA"]])
def test_a_missing_type_is_invalid(kind: object) -> None:
    assert refused(build.config(peft_type=kind)).code == "config_invalid"


def test_unknown_keys_are_refused_where_set_and_kept_where_not() -> None:
    error = refused(build.config(use_novel_trick=True))
    assert error.code == "config_unsupported"
    assert "use_novel_trick" in error.detail
    for value in (False, None, 0, "", [], {}):
        check_config(build.config(use_novel_trick=value), "adapter_config.json")


def test_bias_has_three_values() -> None:
    assert refused(build.config(bias="some")).code == "config_invalid"


@pytest.mark.parametrize(
    ("end", "code", "name"),
    [
        ("lora_magnitude_vector", "config_unsupported", "DoRA"),
        ("lora_diag", "config_unsupported", "KaSA"),
        ("lora_novel.weight", "config_unsupported", "variant"),
        ("hada_w1_a", "peft_type_unsupported", "LoHa"),
        ("lokr_w1", "peft_type_unsupported", "LoKr"),
        ("oft_r.weight", "peft_type_unsupported", "OFT"),
    ],
)
def test_foreign_tensors_are_refused_whatever_the_config_says(
    end: str, code: str, name: str, tmp_path: Path
) -> None:
    tensors = build.tensors(**{f"{build.STEM}.{end}": torch.ones(3)})
    with pytest.raises(AdapterError, match=name) as caught:
        check_folder(build.write(tmp_path, build.config(), tensors))
    assert caught.value.code == code
    assert caught.value.where == f"adapter_model.safetensors#{build.STEM}.{end}"


def test_layer_replication_blocks_methods_that_read_the_base(tmp_path: Path) -> None:
    folder = build.write(tmp_path, build.config(layer_replication=[[0, 1], [0, 1]]), build.tensors())
    (why,) = subspace_blockers(check_folder(folder).features)
    assert "layer_replication" in why
    assert subspace_blockers(("rslora", "conv", "embedding")) == []
