"""Safetensors headers that lie."""

import json
from typing import Any

from loramend.adapter.limits import MiB
from tests.hostile.case import LIMITS, Case, adapter, good_weights, safetensors
from tests.hostile.zips import good_members, zipped


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def one(*args: Any, data: int = 8, **kwargs: Any) -> bytes:
    """One tensor named a."""
    return safetensors({"a": entry(*args, **kwargs)}, bytes(data))


def _invalid() -> dict[str, bytes]:
    text = json.dumps(entry()).encode()
    two = {"a": entry(), "b": entry(offsets=(4, 12))}
    named = {
        "control": "\x1b[31m",
        "newline": "a\nb",
        "nul": "a\0b",
        "bidi": "a\u202eb",
        "surrogate": "a\ud800",
        "long": "a" * 513,
        "empty": "",
    }
    return {
        "nothing": b"",
        "seven-bytes": bytes(7),
        "length-0": safetensors(b""),
        "length-past-the-end": safetensors({}, length=99),
        "length-2-63": safetensors({}, length=2**63),
        "length-2-64": b"\xff" * 8 + b"{}",
        "not-json": safetensors(b"{nonsense}"),
        "array": safetensors(b"[]"),
        "leading-space": safetensors(b" {}"),
        "byte-order-mark": safetensors(b"\xef\xbb\xbf{}"),
        "not-utf8": safetensors(b'{"\xff": 1}'),
        "utf16": safetensors("{}".encode("utf-16")),
        "deep": safetensors(b'{"a":' * 20_000),
        "deep-dtype": one(json.loads("[" * 900 + "]" * 900)),
        "deep-shape": one(shape=json.loads("[" * 900 + "]" * 900)),
        "endless-number": safetensors(b'{"a":' + b"9" * 10_000 + b"}"),
        "duplicate-tensor": safetensors(b'{"a":%s,"a":%s}' % (text, text), bytes(8)),
        "duplicate-key": safetensors(
            b'{"a":{"dtype":"F32","dtype":"F64","shape":[2],"data_offsets":[0,8]}}', bytes(8)
        ),
        "duplicate-metadata": safetensors(b'{"__metadata__":{},"__metadata__":{}}'),
        "entry-a-number": safetensors({"a": 1}),
        "entry-with-more": safetensors({"a": entry() | {"requires_grad": True}}, bytes(8)),
        "entry-with-less": safetensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        "overlap": safetensors(two, bytes(12)),
        "same-bytes": safetensors({"a": entry(), "b": entry()}, bytes(8)),
        "gap": safetensors({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
        "gap-at-the-start": one(offsets=(4, 12), data=12),
        "trailing-bytes": one(data=9),
        "zip-at-the-end": good_weights() + zipped(good_members()),
        "out-of-range": one(offsets=(0, 8), data=4),
        "offset-2-62": one(shape=[2**60], offsets=(0, 2**62)),
        "offset-2-64": one(offsets=(2**64 - 8, 2**64)),
        "offset-negative": one(offsets=(-8, 0)),
        "offsets-backwards": one(offsets=(8, 0)),
        "offset-a-float": one(offsets=(0.0, 8.0)),
        "three-offsets": one(offsets=(0, 4, 8)),
        "shape-2-63": one(shape=[2**63]),
        "shape-2-63-and-0": one(shape=[0, 2**63], offsets=(0, 0), data=0),
        "shape-product-wraps": one(shape=[2**33, 2**31 + 1]),
        "shape-negative": one(shape=[-1, -2]),
        "shape-a-float": one(shape=[2.0]),
        "shape-a-bool": one(shape=[True, 2]),
        "shape-a-string": one(shape="2"),
        "shape-of-17": one(shape=[1] * 16 + [2]),
        "wrong-byte-count": one(shape=[3]),
        "half-a-byte": one("F4", [1], (0, 1), data=1),
        "unknown-dtype": one("F31"),
        "dtype-lower-case": one("f32"),
        "dtype-a-list": one(["F32"]),
        "dtype-null": one(None),
        "metadata-of-numbers": safetensors({"__metadata__": {"format": 1}}),
        "metadata-nested": safetensors({"__metadata__": {"a": {"b": "c"}}}),
        "metadata-a-list": safetensors({"__metadata__": []}),
        "metadata-surrogate": safetensors({"__metadata__": {"a": "\ud800"}, "a": entry()}, bytes(8)),
    } | {f"name-{key}": safetensors({name: entry()}, bytes(8)) for key, name in named.items()}


def _unordered() -> bytes:
    """Sound weights whose header lists them last first, as is allowed."""
    whole = good_weights()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    return safetensors(dict(reversed(header.items())), whole[8 + length :])


def headers() -> list[Case]:
    def many() -> bytes:
        return safetensors({str(index): entry("U8", [0], (0, 0)) for index in range(LIMITS.max_tensors + 1)})

    return [
        *(
            adapter(f"header-{name}", "safetensors_invalid", weights=content)
            for name, content in _invalid().items()
        ),
        adapter(
            "header-too-long", "limit_exceeded", weights=lambda: safetensors(b"{" + b" " * 16 * MiB + b"}")
        ),
        adapter("header-too-many-tensors", "limit_exceeded", weights=many),
        adapter(
            "header-of-empty-lists",
            "limit_exceeded",
            weights=lambda: safetensors(b'{"a":[' + b"[]," * (4 * MiB) + b"[]]}"),
        ),
        adapter("header-unordered", None, weights=_unordered()),
    ]
