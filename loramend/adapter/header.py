"""The header of a safetensors file, read and checked without touching a tensor.

Format (https://github.com/huggingface/safetensors#format): 8 bytes N, little endian; N bytes of JSON, which
map a tensor's name to its dtype, shape and [begin, end) in the rest of the file; then the tensors, without
holes or overlaps.
"""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loramend.adapter.limits import Limits
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_MAX_DIMENSIONS = 16
_MAX_OFFSET = 1 << 62


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `begin` and `end` count bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header. tensors: by name, in the order they lie in the file."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


class _DuplicateKeyError(ValueError):
    """A JSON object names a key twice."""


def read_header(path: Path, limits: Limits) -> Header:
    """The header of the safetensors file at `path`.

    Raises AdapterError: `pickle_refused` for a pickle under this name, `limit_exceeded` over a cap,
    `safetensors_invalid` for anything else that is not a valid file.
    """
    where = path.name
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        first = file.read(1)
        # The same 8 bytes could be a length, but then a header's brace comes next.
        if start.startswith(_PICKLE_STARTS) and first != b"{":
            raise pickle_refused(where)
        if len(start) < 8:
            raise _invalid("it is shorter than the 8 bytes of a header's length", where)
        length = int.from_bytes(start, "little")
        if length > size - 8:
            raise _invalid(f"its header should hold {length} bytes but the file ends after {size - 8}", where)
        if length > limits.max_header_bytes:
            raise AdapterError(
                "limit_exceeded",
                f"The safetensors header holds {length} bytes; at most {limits.max_header_bytes} are read.",
                where=where,
            )
        file.seek(8)
        raw = file.read(length)
    if len(raw) < length:
        raise _invalid("the file ended while its header was read", where)
    return _parse(raw, size - 8 - length, limits, where)


def pickle_refused(where: str) -> AdapterError:
    """The error for pickled weights, with how to convert them."""
    return AdapterError(
        "pickle_refused",
        "Pickled weights can run code when opened, so they never are. Convert them where you trust them: "
        "load the adapter with PeftModel.from_pretrained(base, folder) and save it with "
        "save_pretrained(new_folder), which writes adapter_model.safetensors; or "
        "safetensors.torch.save_file(torch.load(path, weights_only=True), 'adapter_model.safetensors').",
        where=where,
    )


def _invalid(why: str, where: str) -> AdapterError:
    return AdapterError(
        "safetensors_invalid", f"Not a valid safetensors file: {why}. Send a complete file.", where=where
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _DuplicateKeyError
    return found


def _parse(raw: bytes, data_bytes: int, limits: Limits, where: str) -> Header:
    if not raw.startswith(b"{"):
        raise _invalid("its header does not begin with '{'", where)
    # An entry has a brace and two brackets; millions of empty ones would take 20 times the header's memory.
    if raw.count(b"{") + raw.count(b"[") > 4 * limits.max_tensors + 1000:
        raise AdapterError(
            "limit_exceeded",
            f"The safetensors header holds more objects than {limits.max_tensors} tensors have.",
            where=where,
        )
    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except _DuplicateKeyError:
        raise _invalid("its header names a tensor or key twice", where) from None
    except UnicodeDecodeError:
        raise _invalid("its header is not UTF-8", where) from None
    except (ValueError, RecursionError):
        raise _invalid("its header is not JSON of the expected form", where) from None
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("__metadata__ must map strings to strings", where)
    try:
        "".join(itertools.chain(metadata, metadata.values())).encode()
    except UnicodeEncodeError:
        raise _invalid("__metadata__ holds half of a surrogate pair", where) from None
    if len(entries) > limits.max_tensors:
        raise AdapterError(
            "limit_exceeded",
            f"The file holds {len(entries)} tensors; at most {limits.max_tensors} are read.",
            where=where,
        )
    tensors = {name: _tensor(name, entry, limits, where) for name, entry in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    position = 0
    for name, info in ordered.items():
        if info.begin != position:
            problem = "overlaps the one before it" if info.begin < position else "leaves a hole before it"
            raise _invalid(f"tensor {quote(name)} {problem}", where)
        position = info.end
    if position != data_bytes:
        raise _invalid(f"its tensors end at byte {position} but {data_bytes} bytes follow the header", where)
    return Header(ordered, metadata)


def _tensor(name: str, entry: object, limits: Limits, where: str) -> TensorInfo:
    if not name or len(name) > limits.max_name_length or not name.isprintable():
        raise _invalid(
            f"a tensor's name must be 1 to {limits.max_name_length} printable characters, "
            f"not {quote(name)!r}",
            where,
        )
    place = f"{where}#{name}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _invalid("an entry must have exactly dtype, shape and data_offsets", place)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        shown = quote(dtype) if isinstance(dtype, str) else "that is no string"
        raise _invalid(f"unknown dtype {shown}", place)
    if not _counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _invalid(f"a shape must be at most {_MAX_DIMENSIONS} whole numbers", place)
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid("data_offsets must be [begin, end]", place)
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise _invalid(
            f"shape {shape} of {dtype} does not take the {offsets[1] - offsets[0]} bytes given", place
        )
    return TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])


def _counts(value: object) -> bool:
    """A list of non-negative whole numbers (a bool is none)."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_OFFSET for item in value)
