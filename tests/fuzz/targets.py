"""What is fuzzed: each reader of untrusted bytes, fed with any bytes. Only our own errors may escape."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from loramend.adapter.archive import extract
from loramend.adapter.check import check_folder
from loramend.adapter.config import parse_settings, read_config
from loramend.adapter.header import read_header
from loramend.adapter.limits import Limits, MiB
from loramend.contracts.data import DATA_ROLES
from loramend.contracts.errors import LoramendError
from loramend.data.jsonl import DataLimits, read_jsonl
from tests.hostile.case import CONFIG, WEIGHTS, good_config, good_weights, safetensors

Target = Callable[[bytes, Path], None]

# Small, so that an input that is over them is found soon and one that is not costs little.
LIMITS = Limits(
    max_unpacked_bytes=4 * MiB,
    ratio_free_bytes=MiB,
    max_members=50,
    max_tensors=200,
    max_config_bytes=MiB // 4,
    pattern_seconds=0.2,
)
_DATA_LIMITS = DataLimits(max_bytes=MiB, max_line_bytes=MiB // 16, max_lines=1000)


def archive(content: bytes, room: Path) -> None:
    """Unpacked, and what was unpacked read as an adapter."""
    upload = room / "upload"
    upload.write_bytes(content)
    into = room / "into"
    with contextlib.suppress(LoramendError):
        check_folder(extract(upload, into, LIMITS), LIMITS)
    for path in room.rglob("*"):
        assert not path.is_symlink()
        assert into in (path, *path.parents) or path == upload, f"{path} lies outside"


def header(content: bytes, room: Path) -> None:
    """A safetensors file alone and beside a sound config; once as it is, once with a length that fits its
    header, which changed bytes hardly ever have."""
    end = content.rfind(b"}") + 1
    for tried in (content, safetensors(content[8:end], content[end:])):
        _header(tried, room)


def _header(content: bytes, room: Path) -> None:
    (room / WEIGHTS).write_bytes(content)
    (room / CONFIG).unlink(missing_ok=True)
    with contextlib.suppress(LoramendError):
        found = read_header(room / WEIGHTS, LIMITS)
        end = max((info.end for info in found.tensors.values()), default=0)
        assert 8 + end <= len(content)
    (room / CONFIG).write_bytes(good_config())
    with contextlib.suppress(LoramendError):
        check_folder(room, LIMITS)


def config(content: bytes, room: Path) -> None:
    """A config beside sound weights; what is read can be written."""
    (room / CONFIG).write_bytes(content)
    (room / WEIGHTS).write_bytes(good_weights())
    with contextlib.suppress(LoramendError):
        read = read_config(room / CONFIG, LIMITS)
        json.dumps(read, indent=2).encode()
        parse_settings(read, CONFIG)
    with contextlib.suppress(LoramendError):
        check_folder(room, LIMITS)


def data(content: bytes, room: Path) -> None:
    """A file of text in every role."""
    (room / "text.jsonl").write_bytes(content)
    for role in DATA_ROLES:
        with contextlib.suppress(LoramendError):
            found = read_jsonl(room / "text.jsonl", role, name="text.jsonl", limits=_DATA_LIMITS)
            assert all(example.text or example.messages for example in found.examples)


TARGETS: Mapping[str, Target] = {"archive": archive, "header": header, "config": config, "data": data}


def run(target: Target, content: bytes) -> None:
    """One input, in a folder of its own."""
    with tempfile.TemporaryDirectory() as room:
        target(content, Path(room))
