"""Which files of a model folder hold its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from loramend.adapter.quote import quote
from loramend.contracts.errors import ReferenceModelError

# transformers' and diffusers' names, in the order those libraries look for them.
SINGLE = ("model.safetensors", "diffusion_pytorch_model.safetensors")
INDEX = ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json")
PIPELINE = "model_index.json"
MAX_JSON_BYTES = 256 << 20

# transformers' model types whose projections are Conv1D layers, stored as (in, out).
CONV1D_TYPES = frozenset({"clvp", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"})


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file of a model.

    prefix  what its tensor names get in front: "unet." inside a diffusers pipeline, else nothing
    named   the tensors an index says it holds; None where there is no index and the file's header decides
    """

    path: Path
    label: str
    prefix: str = ""
    named: frozenset[str] | None = None


@dataclass(frozen=True)
class Layout:
    """A model's weight files, in order, and its config.json (empty where there is none)."""

    files: tuple[WeightFile, ...]
    config: Mapping[str, Any]

    @property
    def tied(self) -> bool:
        """config.json says that lm_head shares the embedding's weight, or leaves it at transformers 4's
        default, which is that it does and which was not written out."""
        text = self.config.get("text_config")
        configs = [self.config, text] if isinstance(text, dict) else [self.config]
        said = [config["tie_word_embeddings"] for config in configs if "tie_word_embeddings" in config]
        return any(value is True for value in said) if said else bool(self.config)

    @property
    def conv1d(self) -> bool:
        """config.json names a model type that stores its projections as (in, out)."""
        model_type = self.config.get("model_type")
        return isinstance(model_type, str) and model_type in CONV1D_TYPES


def find_weights(model: Path) -> Layout:
    """The weight files of a model folder, a diffusers pipeline's folder, or one safetensors file.

    Of a folder: model.safetensors; else the shards its index names; else every *.safetensors in it. Raises
    ReferenceModelError: `reference_not_found` where nothing is there, `reference_invalid` where it holds no
    weights that can be read.
    """
    if model.is_file():
        if model.suffix != ".safetensors":
            raise _invalid(_not_safetensors(model.name), quote(model.name))
        return Layout((WeightFile(model, model.name),), _config(model.parent))
    if not model.is_dir():
        raise ReferenceModelError(
            "reference_not_found",
            "No model there: give a folder or a .safetensors file.",
            where=quote(model.name),
        )
    if (model / PIPELINE).is_file():
        folders = sorted(folder for folder in model.iterdir() if folder.is_dir())
        files = tuple(
            WeightFile(file.path, f"{folder.name}/{file.label}", f"{folder.name}.", file.named)
            for folder in folders
            for file in _folder(folder)
        )
    else:
        files = _folder(model)
    if not files:
        raise _invalid(_why_empty(model), quote(model.name))
    return Layout(files, _config(model))


def _folder(folder: Path) -> tuple[WeightFile, ...]:
    for name in SINGLE:
        if (folder / name).is_file():
            return (WeightFile(folder / name, name),)
    for name in INDEX:
        if (folder / name).is_file():
            return _indexed(folder, name)
    found = sorted(folder.glob("*.safetensors"))
    return tuple(WeightFile(path, path.name) for path in found if not path.name.startswith("adapter_"))


def _indexed(folder: Path, index: str) -> tuple[WeightFile, ...]:
    weight_map = _json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _invalid("The index has no weight_map: download the model again.", index)
    names: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _inside(shard):
            raise _invalid(
                "The index points outside the model's folder, or to no .safetensors file: "
                f"{quote(str(shard))!r}.",
                index,
            )
        names.setdefault(shard, set()).add(tensor)
    return tuple(
        WeightFile(folder / shard, shard, named=frozenset(tensors))
        for shard, tensors in sorted(names.items())
    )


def _inside(shard: str) -> bool:
    path = PurePosixPath(shard)
    plain = shard.isprintable() and shard.endswith(".safetensors")
    return plain and not path.is_absolute() and ".." not in path.parts


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise _invalid(f"It is larger than {MAX_JSON_BYTES} bytes.", path.name)
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        raise _invalid("It cannot be read as JSON: download the model again.", path.name) from None
    if not isinstance(value, dict):
        raise _invalid("It must hold a JSON object.", path.name)
    return value


def _why_empty(folder: Path) -> str:
    names = [path.name for path in folder.iterdir()]
    if "adapter_config.json" in names:
        return "That is an adapter, not a model: give the model it was trained on."
    for suffix in (".bin", ".pt", ".pth", ".ckpt", ".gguf"):
        for name in names:
            if name.endswith(suffix) and name != "training_args.bin":
                return _not_safetensors(name)
    return "The folder holds no .safetensors weights."


def _not_safetensors(name: str) -> str:
    if name.endswith(".gguf"):
        return (
            f"{quote(name)} is quantised GGUF, and reference weights must be plain safetensors. "
            "Give the unquantised model."
        )
    return (
        f"{quote(name)} is no safetensors file, and pickled weights are never opened. Convert it where "
        "you trust it: "
        "AutoModel.from_pretrained(path).save_pretrained(new_path) writes safetensors."
    )


def _invalid(detail: str, where: str) -> ReferenceModelError:
    return ReferenceModelError("reference_invalid", detail, where=where)
