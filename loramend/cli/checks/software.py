"""Versions, and which parts of loramend are installed."""

import importlib.util
import platform
from collections.abc import Iterator
from importlib import metadata

from loramend.cli.checks.result import Finding

# What each part needs, by the names to import, and the extra that brings it.
_PARTS = (
    (
        "inspect, repair and diff",
        "repair",
        ("torch", "safetensors", "jinja2", "huggingface_hub", "cyclonedx"),
    ),
    ("steps that train, and evaluate", "train", ("transformers",)),
    ("serve", "all", ("service", "worker", "fastapi", "celery", "redis", "uvicorn")),
)
_SHOWN = ("torch", "transformers", "safetensors", "huggingface_hub", "numpy", "fastapi", "celery", "redis")


def software() -> Iterator[Finding]:
    """Python and packages, then each part of the command line that lacks something."""
    versions = [f"{name} {version}" for name in _SHOWN if (version := _version(name))]
    found = f"loramend {_version('loramend')}, Python {platform.python_version()}, {', '.join(versions)}"
    yield Finding(name="versions", state="ok", found=found)
    for what, extra, modules in _PARTS:
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            yield Finding(
                name=what,
                # The rest can be what this machine is not for.
                state="fix" if extra == "repair" else "note",
                found=f"not possible here: {', '.join(missing)} not installed",
                remedy=f"pip install 'loramend[{extra}]'",
            )
        else:
            yield Finding(name=what, state="ok", found="installed")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
