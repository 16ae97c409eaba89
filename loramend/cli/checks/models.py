"""Model roots: folders under which a server finds local models."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from loramend.cli.checks.result import Finding

_DEPTH = 3


def model_roots(given: Sequence[Path], told: str | None) -> Iterator[Finding]:
    """Those given, else those of LORAMEND_MODEL_ROOTS: are they there, and do they hold models?"""
    roots = list(given) or _from_environment(told)
    if roots is None:
        yield Finding(
            name="model roots",
            state="fix",
            found="LORAMEND_MODEL_ROOTS is no JSON list",
            remedy=f'write it as ["/folder", …], or join folders by "{os.pathsep}"',
        )
        return
    if not roots:
        yield Finding(
            name="model roots",
            state="note",
            found="none: a server takes models from the Hub alone",
            remedy="loramend serve --model-root DIR lets requests name local ones",
        )
    for root in roots:
        yield _look(root.expanduser())


def _look(root: Path) -> Finding:
    name = f"model root {root}"
    if not root.is_dir():
        return Finding(
            name=name,
            state="fix",
            found="there is no such folder",
            remedy="correct --model-root or LORAMEND_MODEL_ROOTS",
        )
    if not os.access(root, os.R_OK | os.X_OK):
        return Finding(
            name=name, state="fix", found="this user may not read it", remedy="give the folder's rights"
        )
    count = _models(root, _DEPTH)
    if not count:
        return Finding(
            name=name,
            state="note",
            found="holds no model with config.json and .safetensors weights",
            remedy="put a model's folder there: hf download ORG/NAME --local-dir DIR/NAME",
        )
    return Finding(name=name, state="ok", found=f"holds {count} model{'s' if count > 1 else ''}")


def _models(folder: Path, depth: int) -> int:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return 0
    if any(entry.name == "config.json" for entry in entries):
        return int(any(entry.suffix == ".safetensors" for entry in entries))
    if depth == 0:
        return 0
    return sum(_models(entry, depth - 1) for entry in entries if entry.is_dir() and not entry.is_symlink())


def _from_environment(told: str | None) -> list[Path] | None:
    """As the service reads it; None where it cannot be read."""
    if not told:
        return []
    if not told.lstrip().startswith("["):
        return [Path(part) for part in told.split(os.pathsep) if part]
    try:
        return [Path(part) for part in json.loads(told)]
    except (ValueError, TypeError):
        return None
