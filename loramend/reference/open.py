"""Opening the models a repair measures against."""

import shutil
import tempfile
import weakref
from pathlib import Path

import torch

from loramend.reference.cache import SubspaceCache
from loramend.reference.checkpoint import Checkpoint
from loramend.reference.digests import DigestMemo
from loramend.reference.pair import Model, ModelPair, Role


def open_references(
    base: Path | None,
    aligned: Path | None,
    *,
    base_name: str | None = None,
    aligned_name: str | None = None,
    cache_dir: Path | None = None,
    device: str | torch.device = "cpu",
) -> ModelPair:
    """Open model folders (or single safetensors files) as references; only headers are read.

    base_name, aligned_name  how the report calls them; else the folder's name
    cache_dir   keeps subspaces and digests from run to run; None: a temporary folder, gone when the result
                is closed or dropped
    device      where dense work on weights runs

    Raises ReferenceModelError `reference_not_found` or `reference_invalid`.
    """
    temporary = Path(tempfile.mkdtemp(prefix="loramend-")) if cache_dir is None else None
    folder = temporary or cache_dir
    assert folder is not None
    try:
        memo = DigestMemo(folder / "digests")
        given: tuple[tuple[Role, Path | None, str | None], ...] = (
            ("base", base, base_name),
            ("aligned", aligned, aligned_name),
        )
        models = [
            Model(role, name or path.name, Checkpoint(path, role=role, memo=memo))
            for role, path, name in given
            if path is not None
        ]
    except BaseException:
        _remove(temporary)
        raise
    pair = ModelPair(
        models,
        cache=SubspaceCache(folder / "subspaces"),
        device=torch.device(device),
        on_close=lambda: _remove(temporary),
    )
    # Without close(), the folder goes when the pair does, at the latest at the interpreter's end.
    weakref.finalize(pair, _remove, temporary)
    return pair


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
