"""Small real adapters as bytes."""

import gzip
import io
import json
import tarfile
import zipfile
from typing import Any

import numpy as np
from safetensors.numpy import save

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "org/base",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
}
_MODULE = "base_model.model.model.layers.{layer}.self_attn.{name}"


def weights(rank: int = 4, seed: int = 0) -> bytes:
    """Four LoRA modules of 32 x 16, as adapter_model.safetensors."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(2):
        for name in ("q_proj", "v_proj"):
            module = _MODULE.format(layer=layer, name=name)
            tensors[f"{module}.lora_A.weight"] = random.standard_normal((rank, 16), dtype=np.float32)
            tensors[f"{module}.lora_B.weight"] = random.standard_normal((32, rank), dtype=np.float32)
    return save(tensors, metadata={"format": "pt"})


def folder(**changes: Any) -> dict[str, bytes]:
    """The files of a PEFT adapter, with changes to its config."""
    config = json.dumps(CONFIG | changes).encode()
    return {"adapter_config.json": config, "adapter_model.safetensors": weights()}


def tar_gz(files: dict[str, bytes]) -> bytes:
    """The same bytes at every call: gzip would write the second it runs in."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
