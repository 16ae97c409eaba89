import contextlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from loramend.adapter.header import DTYPE_BITS, read_header
from loramend.adapter.limits import Limits
from loramend.contracts.errors import AdapterError


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refusal(path: Path, content: bytes, limits: Limits | None = None) -> AdapterError:
    path.write_bytes(content)
    with pytest.raises(AdapterError) as caught:
        read_header(path, limits or Limits())
    return caught.value


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "half": torch.zeros(3, 2, dtype=torch.float16),
        "brain": torch.zeros(5, dtype=torch.bfloat16),
        "long": torch.zeros(2, dtype=torch.int64),
        "eight": torch.zeros(3, dtype=torch.float8_e4m3fn),
        "flag": torch.zeros(3, dtype=torch.bool),
    }
    save_file(tensors, path, metadata={"format": "pt", "naïve": "ü"})
    header = read_header(path, Limits())
    assert header.metadata == {"format": "pt", "naïve": "ü"}
    assert {name: info.shape for name, info in header.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    for name, info in header.tensors.items():
        assert info.end - info.begin == tensors[name].nbytes


BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "seven_bytes": b"\0" * 7,
    "no_header": struct.pack("<Q", 0),
    "length_past_the_end": raw({}, length=99),
    "enormous_length": raw({}, length=2**63),
    "not_json": raw(b"{nonsense}"),
    "not_an_object": raw(b"[]"),
    "leading_space": raw(b" {}"),
    "not_utf8": raw(b'{"\xff": 1}'),
    "deep": raw(b'{"a":' * 100_000),
    "huge_number": raw(b'{"a":' + b"9" * 10_000 + b"}"),
    "duplicate_tensor": raw(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), b"\0" * 8),
    "duplicate_key": raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"\0" * 8),
    "entry_not_an_object": raw({"a": 1}),
    "missing_key": raw({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8),
    "extra_key": raw({"a": entry() | {"x": 1}}, b"\0" * 8),
    "unknown_dtype": raw({"a": entry("F31")}, b"\0" * 8),
    "dtype_not_a_string": raw({"a": entry() | {"dtype": ["F32"]}}, b"\0" * 8),
    "negative_size": raw({"a": entry(shape=(-2,))}, b"\0" * 8),
    "boolean_size": raw({"a": entry(shape=(True, 2))}, b"\0" * 8),
    "float_size": raw({"a": entry(shape=(2.0,))}, b"\0" * 8),
    "too_many_dimensions": raw({"a": entry(shape=[1] * 40 + [2])}, b"\0" * 8),
    "one_offset": raw({"a": entry(offsets=(0,))}, b"\0" * 8),
    "offsets_backwards": raw({"a": entry(offsets=(8, 0))}, b"\0" * 8),
    "shape_and_size_differ": raw({"a": entry(shape=(3,))}, b"\0" * 8),
    "overlap": raw({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 12),
    "hole": raw({"a": entry(), "b": entry(offsets=(12, 20))}, b"\0" * 20),
    "hole_at_the_start": raw({"a": entry(offsets=(4, 12))}, b"\0" * 12),
    "trailing_bytes": raw({"a": entry()}, b"\0" * 9),
    "truncated": raw({"a": entry()}, b"\0" * 7),
    "half_a_byte": raw({"a": entry("F4", (1,), (0, 1))}, b"\0"),
    "metadata_not_strings": raw({"__metadata__": {"a": 1}}),
    "metadata_a_list": raw({"__metadata__": []}),
    "control_character_in_a_name": raw({"\x1b[31m": entry()}, b"\0" * 8),
    "long_name": raw({"a" * 600: entry()}, b"\0" * 8),
    "empty_name": raw({"": entry()}, b"\0" * 8),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(name: str, tmp_path: Path) -> None:
    error = refusal(tmp_path / "x.safetensors", BROKEN[name])
    assert error.code == "safetensors_invalid"
    assert error.where is not None
    assert error.where.startswith("x.safetensors")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = save({"a": torch.ones(2, 3), "b": torch.ones(4)})
    for length in range(len(whole)):
        assert refusal(tmp_path / "x.safetensors", whole[:length]).code == "safetensors_invalid"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_by_another_name_is_refused(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"lora_A": list(range(50))}, protocol)
    error = refusal(tmp_path / "x.safetensors", content)
    assert error.code == "pickle_refused"
    assert "save_pretrained" in error.detail


def test_a_torch_file_by_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    assert refusal(path, path.read_bytes()).code == "pickle_refused"


def test_caps(tmp_path: Path) -> None:
    content = save({"a": torch.ones(2), "b": torch.ones(2)})
    path = tmp_path / "x.safetensors"
    assert refusal(path, content, Limits(max_header_bytes=20)).code == "limit_exceeded"
    assert refusal(path, content, Limits(max_tensors=1)).code == "limit_exceeded"


def test_a_name_in_a_message_holds_no_control_characters(tmp_path: Path) -> None:
    error = refusal(tmp_path / "x.safetensors", raw({"a": entry("\x1b[2J")}, b"\0" * 8))
    assert "\x1b" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats(allow_nan=True) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(DTYPE_BITS)) | JSON,
        "shape": st.lists(st.integers(0, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2) | JSON,
    }
)
HEADERS = st.dictionaries(st.text(max_size=4), ENTRIES | JSON, max_size=4)


def only_adapter_errors(folder: Path, content: bytes) -> None:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(AdapterError):
        read_header(path, Limits())


@given(content=st.binary(max_size=200))
def test_arbitrary_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    only_adapter_errors(tmp_path_factory.getbasetemp(), content)


@given(header=HEADERS | JSON, data=st.binary(max_size=32), off=st.sampled_from([0, 0, 0, -1, 1, 2**40]))
def test_arbitrary_headers(
    header: Any, data: bytes, off: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    encoded = json.dumps(header).encode()
    content = raw(encoded, data, max(0, len(encoded) + off))
    only_adapter_errors(tmp_path_factory.getbasetemp(), content)


@given(header=HEADERS, data=st.binary(max_size=16))
def test_what_is_accepted_covers_the_file_exactly(
    header: dict[str, Any], data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "x.safetensors"
    path.write_bytes(raw(header, data))
    try:
        accepted = read_header(path, Limits())
    except AdapterError:
        return
    spans = sorted((info.begin, info.end) for info in accepted.tensors.values())
    assert sum(end - begin for begin, end in spans) == len(data)
    assert all(0 <= begin <= end <= len(data) for begin, end in spans)
