"""Small checkpoints and updates, built on the spot."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from loramend.adapter.layout import Kind
from loramend.adapter.model import Update
from loramend.reference.digests import SETTLED_NS


def save_single(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, object] | None = None
) -> Path:
    """A model folder with one model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    _config(folder, config)
    return folder


def save_sharded(
    folder: Path, shards: Sequence[Mapping[str, Tensor]], config: Mapping[str, object] | None = None
) -> Path:
    """A model folder with one file a shard and an index."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
        weight_map |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _config(folder, config)
    return folder


def update_of(
    weight: str,
    shape: tuple[int, int],
    *,
    kind: Kind = "linear",
    transposed: bool = False,
    expert: int | None = None,
) -> Update:
    """A rank-2 update (out, in) of `weight`."""
    out_features, in_features = shape
    generator = torch.Generator().manual_seed(0)
    name = weight.removesuffix(".weight") + ("" if expert is None else f".{expert}")
    return Update(
        name=name,
        kind=kind,
        A=torch.randn(2, in_features, generator=generator),
        B=torch.randn(out_features, 2, generator=generator),
        scale=1.0,
        dtype=torch.float32,
        weight=weight,
        transposed=transposed,
        expert=expert,
    )


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A standard normal tensor."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def settle() -> None:
    """Wait until files written just now count as left alone."""
    time.sleep(2 * SETTLED_NS / 1e9)


def _config(folder: Path, config: Mapping[str, object] | None) -> None:
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
