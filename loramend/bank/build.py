"""From a folder of adapters to a bank."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from loramend.adapter.archive import extract, kind_of
from loramend.adapter.limits import Limits
from loramend.adapter.locate import PICKLES
from loramend.adapter.read import read_adapter
from loramend.bank.describe import describe
from loramend.contracts.bank import Bank, BankAdapter, SkippedAdapter
from loramend.contracts.errors import AdapterError, LoramendError
from loramend.contracts.job import OnProgress, Progress, silent


def build_bank(
    folder: Path, scratch: Path, limits: Limits | None = None, on_progress: OnProgress = silent
) -> tuple[Bank, list[SkippedAdapter]]:
    """The bank of the adapters in a folder: each subfolder, archive and .safetensors file is one. One is in
    memory at a time; the same adapters give the same bank.

    scratch  an empty folder, for what is unpacked; it is empty again afterwards

    Returns with it what could not be read, and why. Raises AdapterError `adapter_not_found` where there is no
    such folder, or nothing in it can be read.
    """
    if not folder.is_dir():
        raise AdapterError("adapter_not_found", f"There is no folder {folder} to build a bank of.")
    paths = list(_adapters(folder))
    kept: dict[str, BankAdapter] = {}
    skipped: list[SkippedAdapter] = []
    for done, path in enumerate(paths):
        on_progress(Progress(phase="measure", done=done, total=len(paths), unit="files", detail=path.name))
        try:
            adapter = _described(path, scratch / "adapter", limits or Limits())
        except LoramendError as error:
            skipped.append(SkippedAdapter(name=path.name, code=error.code, detail=str(error)))
            continue
        if adapter.sha256 in kept:
            same = f"It has the weights of {kept[adapter.sha256].name}, and counts once."
            skipped.append(SkippedAdapter(name=path.name, code="duplicate", detail=same))
            continue
        kept[adapter.sha256] = adapter
    if not kept:
        first = f" The first: {skipped[0].name}: {skipped[0].detail}" if skipped else ""
        raise AdapterError(
            "adapter_not_found",
            f"No adapter in {folder} could be read: each subfolder, archive or .safetensors file is to be "
            f"one.{first}",
        )
    return Bank(adapters=tuple(kept.values())), skipped


def _adapters(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and (_is_read_in_place(path) or _is_archive(path)):
            yield path


def _is_read_in_place(path: Path) -> bool:
    """What the reader takes as it lies there, or knows how to refuse."""
    return path.is_dir() or path.suffix == ".safetensors" or path.suffix in PICKLES


def _is_archive(path: Path) -> bool:
    try:
        return path.is_file() and kind_of(path) is not None
    except OSError:
        return False


def _described(path: Path, unpacked: Path, limits: Limits) -> BankAdapter:
    try:
        place = path if _is_read_in_place(path) else extract(path, unpacked, limits)
        return describe(read_adapter(place, limits, path.name))
    except OSError as error:
        raise AdapterError(
            "adapter_not_found", f"It cannot be opened: {error.strerror}.", where=path.name
        ) from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
