"""Small adapters of random weights, and steps that keep a worker busy with them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

# With make_long_adapter, enough to be interrupted in the middle of.
LONG_STEPS: list[dict[str, Any]] = [{"type": "random_subspace", "k": 4, "form": "direction"}] * 8


def make_adapter(
    folder: Path,
    *,
    modules: int = 2,
    size: int = 32,
    rank: int = 4,
    base: str = "/nowhere",
    seed: int = 0,
    scale: float = 1.0,
) -> Path:
    """A PEFT folder with random weights, B's of that scale, whose config names that base."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    tensors = {}
    for index in range(modules):
        key = f"base_model.model.model.layers.{index}.self_attn.q_proj"
        tensors[f"{key}.lora_A.weight"] = random.standard_normal((rank, size)).astype(np.float32)
        B = scale * random.standard_normal((size, rank))
        tensors[f"{key}.lora_B.weight"] = B.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": base,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def make_long_adapter(folder: Path, *, modules: int = 60, rank: int = 4) -> Path:
    """One that LONG_STEPS keep busy for seconds."""
    return make_adapter(folder, modules=modules, size=64, rank=rank)


def packed(folder: Path) -> bytes:
    """The folder as a .tar, to be sent."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        return buffer.getvalue()
