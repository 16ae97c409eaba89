"""From updates back to an adapter's files, in canonical form.

s becomes 1 and is folded into B, which is exact for a power of two and otherwise rounds each entry of B once,
to the file's dtype. alpha = r everywhere; ranks that differ get exact patterns in PEFT's config, and are
filled with zeros where a loader knows but one rank: experts, groups, the components of a diffusers pipeline.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loramend.adapter.config import CONFIG_FILE
from loramend.adapter.diffusion_keys import METADATA_KEY, component
from loramend.adapter.digest import digest_file
from loramend.adapter.factors import join_factors, split_factors
from loramend.adapter.layout import ModuleLayout
from loramend.adapter.locate import WEIGHTS_FILE
from loramend.adapter.model import Adapter
from loramend.adapter.patterns import exact_key
from loramend.adapter.serialize import write_safetensors
from loramend.contracts.errors import AdapterError
from loramend.contracts.report import FileDigest

# float16 keeps 11 bits between 2^-14 and 2^15: a largest entry within these bounds leaves room on both sides.
_HALF_LOW, _HALF_HIGH = 2.0**-8, 2.0**15

_EXPERT_LAYER = re.compile(r"\.experts\.\d+\.")


def write_adapter(adapter: Adapter, folder: Path) -> list[FileDigest]:
    """Writes the adapter in its own format into `folder`: the same adapter gives the same bytes.

    Each update is written in its dtype. Tensors passed through keep their bytes, except lora_B's biases: PEFT
    multiplies them with s, so they are multiplied with the s that was read, and what they add to an output
    stays as it was whatever a method did to s and B.

    Raises AdapterError `tensor_not_finite` where a factor does not fit its dtype.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = _ranks(adapter)
    tensors = dict(adapter.passthrough)
    for module in adapter.layout.modules:
        tensors |= _module_tensors(adapter, module, ranks[module.name])
    if adapter.format == "peft":
        config = _config(adapter, ranks)
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
        write_safetensors(tensors, {"format": "pt"}, folder / WEIGHTS_FILE)
        names = [CONFIG_FILE, WEIGHTS_FILE]
    else:
        names = [adapter.layout.weights_file]
        write_safetensors(tensors, _metadata(adapter, ranks), folder / names[0])
    return [FileDigest(path=name, sha256=sha256, size=size) for name, sha256, size in _digests(folder, names)]


def as_written(adapter: Adapter) -> Adapter:
    """The adapter as `write_adapter` writes it and `read_adapter` reads it back: s = 1 folded into B, every
    factor rounded to its file's dtype. Measures of it are measures of the file.

    Raises AdapterError `tensor_not_finite` where a factor does not fit its dtype.
    """
    ranks = _ranks(adapter)
    changed = {}
    for module in adapter.layout.modules:
        rank = ranks[module.name]
        tensors = _module_tensors(adapter, module, rank)
        first = adapter.updates[module.update_names[0]]
        A, B = (tensors[key].to(first.A.dtype) for key in (module.a_key, module.b_key))
        factors = split_factors(replace(module, rank=rank), A, B)
        for name, (A_i, B_i) in zip(module.update_names, factors, strict=True):
            changed[name] = adapter.updates[name].with_factors(B_i, A_i, 1.0)
    return adapter.with_updates(changed)


def _digests(folder: Path, names: list[str]) -> list[tuple[str, str, int]]:
    return [(name, *digest_file(folder / name)) for name in names]


def _ranks(adapter: Adapter) -> dict[str, int]:
    """The rank of each update of a module, by the module's name: the largest among those that must agree."""
    modules = adapter.layout.modules
    # peft fuses experts that were saved as layers of their own at load, and then knows but one rank.
    one_rank = adapter.format == "peft" and any(_EXPERT_LAYER.search(module.name) for module in modules)
    shared: dict[tuple[str, ...], int] = {}
    for module in modules:
        rank = max(1, *(adapter.updates[name].rank for name in module.update_names))
        group = () if one_rank else module.rank_names
        shared[group] = max(shared.get(group, 1), _total(module, rank))
    return {
        module.name: math.ceil(shared[() if one_rank else module.rank_names] / _groups(module))
        for module in modules
    }


def _groups(module: ModuleLayout) -> int:
    return module.count if module.split == "groups" else 1


def _total(module: ModuleLayout, rank: int) -> int:
    """r as the format counts it."""
    return rank * _groups(module)


def _module_tensors(adapter: Adapter, module: ModuleLayout, rank: int) -> dict[str, Tensor]:
    updates = [adapter.updates[name] for name in module.update_names]
    dtype = updates[0].dtype
    A, B = join_factors(module, [(update.A, update.scale * update.B) for update in updates], rank)
    if dtype == torch.float16:
        A, B = _balance(A, B)
    tensors = {module.a_key: A.to(dtype), module.b_key: B.to(dtype)}
    for key, tensor in tensors.items():
        # float64 is bounded as the reader bounds it: by float32's range.
        held = torch.float32 if dtype == torch.float64 else dtype
        if not bool((tensor.abs() <= torch.finfo(held).max).all()):
            raise AdapterError(
                "tensor_not_finite",
                f"{key} has entries that {held} cannot hold after the repair.",
                where=key,
            )
    if module.bias_key is not None:
        assert module.scale is not None
        bias = adapter.passthrough[module.bias_key]
        tensors[module.bias_key] = (bias.double() * module.scale).to(bias.dtype)
    if module.alpha_key is not None:
        tensors[module.alpha_key] = torch.tensor(float(_total(module, rank)))
    return tensors


def _balance(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Moves a power of two between A and B where float16 would lose small or large entries of either."""
    a, b = float(A.abs().max()), float(B.abs().max())
    if min(a, b) == 0 or (min(a, b) >= _HALF_LOW and max(a, b) <= _HALF_HIGH):
        return A, B
    factor = 2.0 ** round(math.log2(a / b) / 2)
    return A / factor, B * factor


def _config(adapter: Adapter, ranks: Mapping[str, int]) -> dict[str, Any]:
    """adapter_config.json: every key as read, but for what the canonical form settles."""
    named = {
        name: _total(module, ranks[module.name])
        for module in adapter.layout.modules
        for name in module.rank_names
    }
    counts = Counter(named.values())
    r = max(counts, key=lambda rank: (counts[rank], rank))
    pattern = {exact_key(name): rank for name, rank in named.items() if rank != r}
    return _canonical(adapter.config, r) | {"rank_pattern": pattern, "alpha_pattern": dict(pattern)}


def _canonical(settings: Mapping[str, Any], r: int) -> dict[str, Any]:
    """LoRA settings with s = 1 at rank r.

    A named initialisation becomes PEFT's default: it says how training began, PEFT would run it again at
    every load, and some need a rank, or a config of their own, that the result no longer has.
    """
    changed = dict(settings) | {"r": r, "lora_alpha": r, "use_rslora": False}
    changed |= {"rank_pattern": {}, "alpha_pattern": {}}
    if isinstance(settings.get("init_lora_weights"), str):
        changed["init_lora_weights"] = True
        if "eva_config" in settings:
            changed["eva_config"] = None
    return changed


def _metadata(adapter: Adapter, ranks: Mapping[str, int]) -> dict[str, str]:
    """A kohya or diffusers file's metadata, without digests of the old tensors and with the new ranks."""
    metadata = {key: value for key, value in adapter.metadata.items() if not key.startswith("sshs_")}
    totals = {module.name: _total(module, ranks[module.name]) for module in adapter.layout.modules}
    distinct = set(totals.values())
    for key in ("ss_network_dim", "ss_network_alpha"):
        if key in metadata:
            # What kohya's own resize script writes where ranks differ.
            metadata[key] = str(max(distinct)) if len(distinct) == 1 else "Dynamic"
    if METADATA_KEY in metadata:
        settings: dict[str, Any] = json.loads(metadata[METADATA_KEY])
        by_component = {component(name): rank for name, rank in totals.items()}
        for prefix in {key.rpartition(".")[0] for key in settings}:
            lead = f"{prefix}." if prefix else ""
            part = {key.removeprefix(lead): value for key, value in settings.items() if _leads(key, lead)}
            r = by_component.get(prefix, max(distinct))
            settings |= {lead + key: value for key, value in _canonical(part, r).items()}
        metadata[METADATA_KEY] = json.dumps(settings, indent=2, sort_keys=True)
    return metadata


def _leads(key: str, lead: str) -> bool:
    return key.startswith(lead) if lead else "." not in key
