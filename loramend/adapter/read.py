"""From an adapter's files to its updates."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loramend.adapter.check import check_files
from loramend.adapter.config import MAX_ALPHA
from loramend.adapter.digest import digest_file
from loramend.adapter.factors import split_factors
from loramend.adapter.layout import ModuleLayout
from loramend.adapter.limits import Limits
from loramend.adapter.model import Adapter, Update
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError


def read_adapter(folder: Path, limits: Limits | None = None, name: str | None = None) -> Adapter:
    """The adapter in a folder, in its only subfolder that holds one, or at a .safetensors file.

    Repeats check.check_folder's checks and refuses NaN and infinity in any tensor. `name` defaults to the
    folder's. Factors are float32, or float64 where the file holds float64.

    Raises AdapterError with the code of the first thing that is wrong.
    """
    checked = check_files(folder, limits or Limits())
    found, layout = checked.found, checked.layout
    weights = found.root / found.weights
    updates: dict[str, Update] = {}
    try:
        with safe_open(weights, framework="pt", device="cpu") as opened:

            def load(key: str) -> Tensor:
                tensor: Tensor = opened.get_tensor(layout.in_file(key))
                _check_finite(key, tensor, found.weights)
                return tensor

            modules = tuple(_with_scale(module, load, found.weights) for module in layout.modules)
            for module in modules:
                updates |= {update.name: update for update in _updates(module, load, found.weights)}
            passthrough = {key: load(key) for key in layout.passthrough}
    except SafetensorError as error:
        raise AdapterError(
            "safetensors_invalid",
            f"The file cannot be read: {quote(str(error))}. Send a complete file.",
            where=found.weights,
        ) from None
    return Adapter(
        name if name is not None else folder.stem if folder.is_file() else folder.name,
        layout.format,
        updates,
        passthrough,
        checked.config,
        replace(layout, modules=modules),
        layout.features,
        tuple((file, *digest_file(found.root / file)) for file in found.files),
        dict(checked.header.metadata),
    )


def _with_scale(module: ModuleLayout, load: Callable[[str], Tensor], file: str) -> ModuleLayout:
    if module.alpha_key is None:
        return module
    # kohya's loaders take an alpha of 0 for one that was not set.
    alpha = float(load(module.alpha_key).item()) or float(module.rank)
    if abs(alpha) > MAX_ALPHA:
        raise AdapterError(
            "config_invalid",
            f"{quote(module.alpha_key)} is beyond {MAX_ALPHA:g}, so no alpha. Send an earlier checkpoint.",
            where=f"{file}#{module.alpha_key}",
        )
    return replace(module, scale=alpha / module.rank)


def _updates(module: ModuleLayout, load: Callable[[str], Tensor], file: str) -> Iterator[Update]:
    stored_A, stored_B = load(module.a_key), load(module.b_key)
    _check_range(module.a_key, stored_A, file)
    _check_range(module.b_key, stored_B, file)
    dtype = torch.promote_types(stored_A.dtype, stored_B.dtype)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    assert module.scale is not None
    # The copy keeps factors apart from the file, which stays mapped.
    factors = split_factors(module, stored_A.to(compute, copy=True), stored_B.to(compute, copy=True))
    for index, (name, (A, B)) in enumerate(zip(module.update_names, factors, strict=True)):
        yield Update(
            name,
            module.kind,
            A,
            B,
            module.scale,
            dtype,
            module.weight,
            module.transposed,
            index if module.split == "experts" else None,
        )


def _check_finite(key: str, tensor: Tensor, file: str) -> None:
    if not tensor.is_floating_point():
        return
    values = tensor if tensor.dtype.itemsize > 1 else tensor.float()
    if not bool(torch.isfinite(values).all()):
        raise AdapterError(
            "tensor_not_finite",
            f"{quote(key)} holds NaN or infinity: its training diverged. Send an earlier checkpoint.",
            where=f"{file}#{key}",
        )


def _check_range(key: str, factor: Tensor, file: str) -> None:
    """A float64 factor stays within float32's range: energies are fourth powers of its entries."""
    if factor.dtype == torch.float64 and float(factor.abs().max()) > torch.finfo(torch.float32).max:
        raise AdapterError(
            "tensor_not_finite",
            f"{quote(key)} holds entries beyond float32's range: its training diverged. Send an earlier "
            "checkpoint.",
            where=f"{file}#{key}",
        )
