"""Small real models and adapters, built on the spot."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Trio:
    """A base model, an aligned one beside it, an adapter for both, and a model of another shape."""

    base: Path
    aligned: Path
    adapter: Path
    other: Path


def tiny_llama(hidden: int = 64, layers: int = 2) -> LlamaForCausalLM:
    """A two-layer Llama with random weights, 4 heads and 128 tokens."""
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def build_trio(folder: Path, *, rank: int = 4, seed: int = 0) -> Trio:
    """Save a base, an aligned model (the base plus a low-rank displacement), an adapter and a wider model."""
    torch.manual_seed(seed)
    model = tiny_llama()
    model.save_pretrained(folder / "base")
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                out, in_ = parameter.shape
                parameter += 0.02 * torch.randn(out, 6) @ torch.randn(6, in_)
    model.save_pretrained(folder / "aligned")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    config = LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    peft_model = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    peft_model.save_pretrained(folder / "adapter")
    tiny_llama(hidden=32).save_pretrained(folder / "other")
    return Trio(folder / "base", folder / "aligned", folder / "adapter", folder / "other")
