"""Is this an adapter that can be repaired? Headers and config alone; torch is not needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loramend.adapter.capability import check_config
from loramend.adapter.config import CONFIG_FILE, read_config
from loramend.adapter.diffusion_keys import diffusion_layout
from loramend.adapter.header import Header, read_header
from loramend.adapter.layout import Format, Layout
from loramend.adapter.limits import Limits
from loramend.adapter.locate import Found, find_adapter
from loramend.adapter.peft_keys import PREFIX, peft_layout
from loramend.contracts.errors import AdapterError


@dataclass(frozen=True)
class AdapterHeader:
    """What an adapter says about itself.

    files           the paths that make it up, relative to what was checked
    modules         updates: LoRA modules, each expert of a MoE parameter by itself
    passed_through  tensors that no method touches
    """

    format: Format
    base_model: str | None
    files: list[str]
    modules: int
    features: tuple[str, ...]
    passed_through: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """An adapter that passed all checks that need no tensor. config: empty for formats without one."""

    found: Found
    header: Header
    config: Mapping[str, Any]
    layout: Layout


def check_folder(folder: Path, limits: Limits | None = None) -> AdapterHeader:
    """Checks the adapter in a folder, in its only subfolder that holds one, or at a .safetensors file.

    Raises AdapterError with the code of the first thing that is wrong.
    """
    checked = check_files(folder, limits or Limits())
    base = folder.parent if folder.is_file() else folder
    named = checked.config.get("base_model_name_or_path")
    return AdapterHeader(
        checked.layout.format,
        named if isinstance(named, str) and named else None,
        [(checked.found.root / name).relative_to(base).as_posix() for name in checked.found.files],
        sum(len(module.update_names) for module in checked.layout.modules),
        checked.layout.features,
        checked.layout.passthrough,
    )


def check_files(path: Path, limits: Limits) -> Checked:
    """check_folder, with what reading the tensors needs."""
    found = find_adapter(path)
    weights = found.root / found.weights
    if found.config is not None:
        config = read_config(found.root / found.config, limits)
        check_config(config, CONFIG_FILE)
        header = read_header(weights, limits)
        if not _is_kohya(header):
            return Checked(found, header, config, peft_layout(header, config, limits, found.weights))
    else:
        header = read_header(weights, limits)
        if not _is_kohya(header) and any(name.startswith(PREFIX) for name in header.tensors):
            raise AdapterError(
                "config_invalid",
                f"{CONFIG_FILE} is missing, and a PEFT adapter's scale stands nowhere else. Send both files.",
                where=CONFIG_FILE,
            )
    alone = Found(found.root, found.weights, None)
    return Checked(alone, header, {}, diffusion_layout(header, limits, found.weights))


def _is_kohya(header: Header) -> bool:
    return any(name.endswith((".lora_down.weight", ".lora_up.weight")) for name in header.tensors)
