"""Adapters written by hand, to be valid or broken in one place."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

STEM = "base_model.model.model.layers.0.self_attn.q_proj"
A_KEY, B_KEY = f"{STEM}.lora_A.weight", f"{STEM}.lora_B.weight"


def tensors(**more: Tensor) -> dict[str, Tensor]:
    """One LoRA layer of rank 2 on a 6 x 5 weight."""
    torch.manual_seed(0)
    return {A_KEY: torch.randn(2, 5), B_KEY: torch.randn(6, 2)} | more


def config(**more: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "someone/base",
    } | more


def write(folder: Path, config: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
