"""Which files in a folder make up the adapter."""

from dataclasses import dataclass
from pathlib import Path

from loramend.adapter.config import CONFIG_FILE
from loramend.adapter.header import pickle_refused
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

WEIGHTS_FILE = "adapter_model.safetensors"

_PREFERRED = (WEIGHTS_FILE, "pytorch_lora_weights.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Found:
    """root: the folder that holds the files; weights and config: their names in it."""

    root: Path
    weights: str
    config: str | None

    @property
    def files(self) -> tuple[str, ...]:
        return (self.weights,) if self.config is None else (self.config, self.weights)


def find_adapter(path: Path) -> Found:
    """The adapter in a folder, in its only subfolder that holds one, or at a .safetensors file.

    adapter_model.safetensors comes first, then pytorch_lora_weights.safetensors, then the only .safetensors.
    Raises AdapterError `adapter_not_found`, or `pickle_refused` where there are pickles alone.
    """
    where = quote(path.name)
    if path.is_file():
        if path.suffix.lower() in PICKLES:
            raise pickle_refused(where)
        return _found(path.parent, path.name)
    if not path.is_dir():
        raise AdapterError(
            "adapter_not_found", f"There is no folder or file {quote(str(path))}.", where=where
        )
    names = _visible(path)
    weights = _weights(path, names)
    if weights is not None:
        return _found(path, weights)
    folders = [path / name for name in names if (path / name).is_dir() and name != "__MACOSX"]
    held = [
        (folder, found) for folder in folders if (found := _weights(folder, _visible(folder))) is not None
    ]
    if len(held) == 1:
        return _found(*held[0])
    if held:
        raise AdapterError(
            "adapter_not_found",
            f"Several folders hold adapters: {_some([folder.name for folder, _ in held])}. Send one of them.",
            where=where,
        )
    for folder in (path, *folders):
        for name in _visible(folder):
            if name.lower().endswith(PICKLES):
                raise pickle_refused(name)
    raise AdapterError(
        "adapter_not_found",
        f"No adapter here: {WEIGHTS_FILE} with {CONFIG_FILE}, or one kohya or diffusers .safetensors file, "
        f"is needed; found {_some(names)}.",
        where=where,
    )


def _found(root: Path, weights: str) -> Found:
    return Found(root, weights, CONFIG_FILE if (root / CONFIG_FILE).is_file() else None)


def _visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _weights(folder: Path, names: list[str]) -> str | None:
    files = [name for name in names if name.endswith(".safetensors") and (folder / name).is_file()]
    for name in _PREFERRED:
        if name in files:
            return name
    if len(files) > 1:
        raise AdapterError(
            "adapter_not_found",
            f"Several .safetensors files and none is called {WEIGHTS_FILE}: {_some(files)}. Send the "
            "adapter's alone.",
            where=quote(folder.name),
        )
    return files[0] if files else None


def _some(names: list[str]) -> str:
    shown = ", ".join(quote(name, 60) for name in names[:5])
    return (shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "nothing"
