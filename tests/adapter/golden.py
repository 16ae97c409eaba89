"""Small adapters of every kind, made and saved by peft itself."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
)

PREFIX = "base_model.model."


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(4, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 8, 3, padding=1)
        self.point = nn.Conv2d(8, 4, 1)
        self.three = nn.Conv3d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (batch, 4, 8)
        x = self.one(x)[:, :, None, :].expand(-1, -1, 4, -1)
        x = self.point(self.two(x))
        return self.three(x[:, :, None].expand(-1, -1, 3, -1, -1))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, groups=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (batch, 4, h, w)
        return self.conv(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:  # (length, batch, 8)
        return self.head(self.attn(x, x, x)[0])


class Experts(nn.Module):
    """A MoE layer whose parameters have names that are not transformers'."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(3, 6, 5))
        self.second = nn.Parameter(torch.randn(3, 5, 6))

    def forward(self, x: Tensor) -> Tensor:  # (batch, 5)
        return torch.einsum("bi,eoi->beo", x, self.first).sum((1, 2))


class OddMoe(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = Experts()

    def forward(self, x: Tensor) -> Tensor:
        return self.experts(x)


def _llama_config(**more: Any) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=32,
        pad_token_id=0,
        **more,
    )


def llama() -> nn.Module:
    return LlamaForCausalLM(_llama_config())


def llama_with_bias() -> nn.Module:
    return LlamaForCausalLM(_llama_config(attention_bias=True))


def classifier() -> nn.Module:
    return LlamaForSequenceClassification(_llama_config(num_labels=3))


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=16))


def mixtral() -> nn.Module:
    return MixtralForCausalLM(
        MixtralConfig(
            hidden_size=16,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=3,
            vocab_size=32,
        )
    )


@dataclass(frozen=True)
class Case:
    base: Callable[[], nn.Module]
    config: dict[str, Any]
    dtype: torch.dtype = torch.float32
    features: tuple[str, ...] = ()


QV = ["q_proj", "v_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

CASES: dict[str, Case] = {
    "linear": Case(llama, {"r": 4, "lora_alpha": 12, "target_modules": QV}),
    "bfloat16": Case(llama, {"r": 4, "lora_alpha": 8, "target_modules": QV}, torch.bfloat16),
    "float16": Case(llama, {"r": 4, "lora_alpha": 8, "target_modules": QV}, torch.float16),
    "float64": Case(llama, {"r": 4, "lora_alpha": 6, "target_modules": QV}, torch.float64),
    "rslora": Case(
        llama,
        {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": QV},
        features=("rslora",),
    ),
    "patterns": Case(
        llama,
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "rank_pattern": {r"layers\.0\..*_proj": 2, "model.layers.1.self_attn.q_proj": 6, "^mlp": 9},
            "alpha_pattern": {"v_proj|o_proj": 3, r"1\.mlp\.(up|down)_proj": 20},
            "use_rslora": True,
        },
        features=("rslora", "rank_pattern", "alpha_pattern"),
    ),
    "lora_bias": Case(
        llama_with_bias,
        {"r": 4, "lora_alpha": 10, "lora_bias": True, "target_modules": QV},
        features=("lora_bias",),
    ),
    "fan_in_fan_out": Case(
        gpt2,
        {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
        features=("fan_in_fan_out",),
    ),
    "embedding": Case(
        llama,
        {"r": 4, "lora_alpha": 6, "target_modules": ["embed_tokens", "q_proj"]},
        features=("embedding",),
    ),
    "conv": Case(
        Convolutions,
        {
            "r": 2,
            "lora_alpha": 5,
            "target_modules": ["one", "two", "point", "three"],
            "rank_pattern": {"two": 3},
        },
        features=("rank_pattern", "conv"),
    ),
    "multihead_attention": Case(
        Attention,
        {"r": 2, "lora_alpha": 3, "target_modules": ["attn", "head"], "rank_pattern": {"attn": 3}},
        features=("rank_pattern", "multihead_attention"),
    ),
    "one_parameter": Case(
        mixtral,
        {"r": 2, "lora_alpha": 5, "target_modules": [], "target_parameters": EXPERTS[1:]},
        features=("target_parameters",),
    ),
    "two_parameters": Case(
        mixtral,
        {
            "r": 2,
            "lora_alpha": 5,
            "target_modules": QV,
            "target_parameters": EXPERTS,
            "rank_pattern": {"experts.down_proj": 3},
            "alpha_pattern": {"experts.gate_up_proj": 7},
        },
        features=("rank_pattern", "alpha_pattern", "target_parameters"),
    ),
    "flat_parameter": Case(
        llama,
        {"r": 2, "lora_alpha": 5, "target_modules": [], "target_parameters": ["q_proj.weight"]},
        features=("target_parameters",),
    ),
    "modules_to_save": Case(
        classifier,
        {"r": 4, "lora_alpha": 8, "target_modules": QV, "modules_to_save": ["score"], "task_type": "SEQ_CLS"},
        features=("modules_to_save",),
    ),
    "bias_lora_only": Case(
        llama_with_bias,
        {"r": 4, "lora_alpha": 8, "target_modules": QV, "bias": "lora_only"},
        features=("bias",),
    ),
    "bias_all": Case(
        llama_with_bias, {"r": 4, "lora_alpha": 8, "target_modules": QV, "bias": "all"}, features=("bias",)
    ),
    "trainable_tokens": Case(
        llama,
        {"r": 4, "lora_alpha": 8, "target_modules": QV, "trainable_token_indices": [3, 5]},
        features=("trainable_tokens",),
    ),
    "orthogonal": Case(
        llama, {"r": 4, "lora_alpha": 8, "target_modules": QV, "init_lora_weights": "orthogonal"}
    ),
    "mica": Case(llama, {"r": 4, "lora_alpha": 8, "target_modules": QV, "init_lora_weights": "mica"}),
}


def base_model(case: Case, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return case.base().to(case.dtype)


def make(case: Case, seed: int = 1) -> PeftModel:
    """A PEFT model whose every adapter tensor is random, in the base model's dtype."""
    base = base_model(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, LoraConfig(**case.config), autocast_adapter_dtype=False)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape))
    return model


def save(case: Case, folder: Path) -> PeftModel:
    """Makes the case's adapter and saves it as peft does."""
    model = make(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return model


def load(case: Case, folder: Path) -> PeftModel:
    """Loads a saved adapter on the same base model; every tensor of the file must have found its place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(base_model(case), folder, autocast_adapter_dtype=False)
        loaded = get_peft_model_state_dict(model)
    saved = load_file(folder / "adapter_model.safetensors")
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)
    return model


def deltas(model: PeftModel) -> Iterator[tuple[str, Tensor, float]]:
    """(name, ΔW in loramend's orientation, s) of each update, by peft's own get_delta_weight."""
    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        name = path.removeprefix(PREFIX).replace(".base_layer", "")
        with torch.no_grad():
            delta = layer.get_delta_weight("default")
        scale = layer.scaling["default"]
        if isinstance(layer, ParamWrapper):
            name = f"{name}.{layer.parameter_name}"
            if layer.num_experts > 1:
                for index, expert in enumerate(delta):
                    turned = expert if layer._did_swap_in_out_features else expert.mT
                    yield f"{name}[{index}]", turned, scale
                continue
        elif "default" in layer.lora_embedding_A or getattr(layer, "fan_in_fan_out", False):
            delta = delta.mT
        yield name, delta.reshape(delta.shape[0], -1), scale
