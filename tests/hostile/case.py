"""What a hostile adapter is: bytes made by code, and the code it must be refused with."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save

from loramend.adapter.limits import Limits
from loramend.contracts.errors import ErrorCode
from tests.adapter import build

# The defaults, but for what takes its time in full before it is refused.
LIMITS = Limits(max_members=500, max_tensors=5_000, pattern_seconds=0.2)

# What is large or slow to make is made when it is written.
Content = bytes | Callable[[], bytes]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Case:
    """One adapter as it comes in.

    code   it is refused with; None for what looks odd, does no harm and is read
    kind   files: a folder of `files`; archive: the only one of `files`, to be unpacked first
    """

    name: str
    code: ErrorCode | None
    kind: Literal["files", "archive"]
    files: Mapping[str, Content]

    def write(self, folder: Path) -> Path:
        """What a reader is given: the folder, or the archive in it."""
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return folder / next(iter(self.files)) if self.kind == "archive" else folder


def archive(name: str, code: ErrorCode | None, content: Content) -> Case:
    return Case(name, code, "archive", {"upload": content})


def adapter(
    name: str, code: ErrorCode | None, *, config: Content | None = None, weights: Content | None = None
) -> Case:
    """An adapter that is sound but for what is given."""
    files = {
        CONFIG: good_config if config is None else config,
        WEIGHTS: good_weights if weights is None else weights,
    }
    return Case(name, code, "files", files)


def good_config(**more: Any) -> bytes:
    return json.dumps(build.config(**more)).encode()


def good_weights() -> bytes:
    return save(build.tensors())


def good_files() -> dict[str, bytes]:
    return {CONFIG: good_config(), WEIGHTS: good_weights()}


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, which may be bytes that are no JSON."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data
