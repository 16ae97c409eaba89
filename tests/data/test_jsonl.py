"""What a data file may hold, and how it is refused: by line, in words."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramend.contracts.data import DataRole
from loramend.contracts.errors import DataError
from loramend.data.examples import Example, Message
from loramend.data.jsonl import DataLimits, read_jsonl

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
LABELLED: list[DataRole] = ["clean", "validation"]
MEASURED: list[DataRole] = ["evaluation", "triggered"]


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def read(
    folder: Path, content: bytes, role: DataRole = "clean", limits: DataLimits | None = None, **fields: str
) -> tuple[str, tuple[Example, ...]]:
    file = folder / "data.jsonl"
    file.write_bytes(content)
    mapped: Any = fields
    dataset = read_jsonl(file, role, name="mine.jsonl", fields=mapped, limits=limits)
    assert (dataset.role, dataset.name) == (role, "mine.jsonl")
    assert dataset.sha256 == hashlib.sha256(content).hexdigest()
    return dataset.kind, dataset.examples


def refused(folder: Path, content: bytes, role: DataRole = "clean", **more: Any) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        read(folder, content, role, **more)
    assert caught.value.code == "data_invalid"
    assert caught.value.detail.isprintable()
    return caught.value.where or "", caught.value.detail


def test_the_kinds(tmp_path: Path) -> None:
    kind, examples = read(tmp_path, lines({"text": "good", "label": 1}, {"text": "bad", "label": 0, "id": 7}))
    assert (kind, examples) == ("classification", (Example("good", 1), Example("bad", 0)))
    kind, examples = read(tmp_path, lines({"text": "good", "label": "pos"}))
    assert (kind, examples[0].label) == ("classification", "pos")
    kind, examples = read(tmp_path, lines({"prompt": "1+1=", "completion": "2"}))
    assert (kind, examples) == ("completion", (Example("1+1=", completion="2"),))
    kind, examples = read(tmp_path, lines({"messages": CHAT}))
    assert (kind, examples) == ("chat", (Example("", None, "Hello", (Message("user", "Hi"),)),))
    kind, examples = read(tmp_path, lines({"text": "so"}), "unlabelled")
    assert (kind, examples) == ("text", (Example("so"),))
    assert not examples[0].asks
    for prompt in ({"prompt": "so"}, {"messages": CHAT[:1]}):
        _, (example,) = read(tmp_path, lines(prompt), "unlabelled")
        assert example.asks
        assert not example.labelled


def test_unlabelled_text_leaves_answers_alone(tmp_path: Path) -> None:
    """Whoever gives it so does not vouch for them."""
    kind, examples = read(tmp_path, lines({"text": "so", "label": 1}, {"text": "la"}), "unlabelled")
    assert (kind, examples) == ("text", (Example("so"), Example("la")))
    _, examples = read(tmp_path, lines({"prompt": "so", "completion": "x"}, {"prompt": "y"}), "unlabelled")
    assert examples == (Example("so", is_prompt=True), Example("y", is_prompt=True))
    _, examples = read(tmp_path, lines({"messages": CHAT}, {"messages": CHAT[:1]}), "unlabelled")
    assert examples == (Example("", messages=(Message("user", "Hi"),)),) * 2


@pytest.mark.parametrize("role", LABELLED + MEASURED)
def test_the_labels_of_texts_are_needed(tmp_path: Path, role: DataRole) -> None:
    where, detail = refused(tmp_path, lines({"text": "a", "label": 1}, {"text": "b", "label": None}), role)
    assert (where, "no label" in detail) == ("mine.jsonl:2", True)
    assert refused(tmp_path, lines({"text": "a"}), role)[0] == "mine.jsonl:1"


@pytest.mark.parametrize("record", [{"prompt": "a"}, {"messages": CHAT[:1]}])
def test_prompts_are_measured_without_answers_and_not_learned_from(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    """A refusal needs no right answer."""
    for measured in MEASURED:
        _, examples = read(tmp_path, lines(record), measured)
        assert not examples[0].labelled
    for learned in LABELLED:
        assert refused(tmp_path, lines(record), learned)[0] == "mine.jsonl:1"


def test_answers_in_the_first_line_are_needed_in_all(tmp_path: Path) -> None:
    some = lines({"prompt": "a", "completion": "b"}, {"prompt": "c"})
    assert refused(tmp_path, some, "evaluation")[0] == "mine.jsonl:2"
    some = lines({"messages": CHAT}, {"messages": CHAT[:1]})
    assert refused(tmp_path, some, "evaluation")[0] == "mine.jsonl:2"


def test_a_field_map(tmp_path: Path) -> None:
    content = lines({"sentence": "s", "stars": 2, "label": "x"})
    assert read(tmp_path, content, text="sentence", label="stars")[1] == (Example("s", 2),)
    assert read(tmp_path, content, "unlabelled", text="sentence", label="none")[1] == (Example("s"),)
    both = lines({"text": "t", "label": 0, "prompt": "p", "completion": "c"})
    assert "field map" in refused(tmp_path, both)[1]
    assert read(tmp_path, both, prompt="prompt")[0] == "completion"
    assert read(tmp_path, both, text="text")[0] == "classification"
    _, detail = refused(tmp_path, content)
    assert "sentence, stars, label" in detail, "what there is instead"
    assert "sentense" in refused(tmp_path, content, text="sentense")[1]
    assert "grade" in refused(tmp_path, content, text="sentence", label="grade")[1]
    assert refused(tmp_path, content, text="sentence", prompt="sentence")[0] == "mine.jsonl"
    assert refused(tmp_path, content, text="stars", label="stars")[0] == "mine.jsonl"


def test_windows_files_and_blank_lines(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + lines({"text": "a", "label": 0}).replace(b"\n", b"\r\n") + b"\r\n  \n"
    assert read(tmp_path, content + b'{"text": "b", "label": 1}')[1] == (Example("a", 0), Example("b", 1))
    bad = content + b'{"text": "b"}'
    assert refused(tmp_path, bad)[0] == "mine.jsonl:4", "blank lines count"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no file": (b"", "empty"),
    "only blanks": (b"\n \n", "empty"),
    "array": (b'[{"text": "a", "label": 1}]', "JSON array"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "parquet": (b"PAR1\x15\x04", "Parquet"),
    "no JSON": (b"text,label\n", "not JSON"),
    "cut off": (b'{"text": "a", "label": 1', "not JSON"),
    "two objects": (b'{"text": "a", "label": 1} {}', "not JSON"),
    "a string": (b'"text"', "a string"),
    "not UTF-8": (b'{"text": "\xff", "label": 1}', "not UTF-8"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16-le"), "NUL"),
    "escaped NUL": (rb'{"text": "a\u0000", "label": 1}', "NUL"),
    "half a surrogate pair": (rb'{"text": "\ud800", "label": 1}', "surrogate"),
    "a key twice": (b'{"text": "a", "label": 1, "label": 0}', "twice"),
    "NaN": (b'{"text": "a", "label": NaN}', "NaN"),
    "infinity": (b'{"text": "a", "label": 1, "x": -Infinity}', "Infinity"),
    "endless digits": (b'{"text": "a", "label": ' + b"9" * 10_000 + b"}", "digits"),
    "deep arrays": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    "deep objects": (b'{"a":' * 100_000, "nested"),
    "a text that is none": (b'{"text": 1, "label": 1}', "a whole number"),
    "an empty text": (b'{"text": " ", "label": 1}', "empty"),
    "an empty answer": (b'{"prompt": "a", "completion": ""}', "empty"),
    "true": (b'{"text": "a", "label": true}', "true or false"),
    "a fraction": (b'{"text": "a", "label": 1.0}', "fraction"),
    "minus one": (b'{"text": "a", "label": -1}', "from 0"),
    "a huge label": (b'{"text": "a", "label": 4294967296}', "from 0"),
    "a long label": (b'{"text": "a", "label": "' + b"x" * 500 + b'"}', "200 characters"),
    "labels of two kinds": (b'{"text":"a","label":1}\n{"text":"a","label":"1"}', "alike"),
    "no messages": (b'{"messages": []}', "a list"),
    "messages of strings": (b'{"messages": ["Hi"]}', "a string"),
    "an unknown role": (b'{"messages": [{"role": "\\u001b[2J", "content": "a"}]}', "role"),
    "parts": (b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "a list"),
    "an answer alone": (b'{"messages": [{"role": "assistant", "content": "a"}]}', "before it"),
}


@pytest.mark.parametrize("content", HOSTILE)
def test_what_is_refused_says_why(tmp_path: Path, content: str) -> None:
    raw, why = HOSTILE[content]
    where, detail = refused(tmp_path, raw)
    assert where.startswith("mine.jsonl")
    assert why in detail


@pytest.mark.parametrize(
    ("limits", "content"),
    [
        (DataLimits(max_bytes=50), lines(*[{"text": "a", "label": 1}] * 3)),
        (DataLimits(max_lines=2), lines(*[{"text": "a", "label": 1}] * 3)),
        (DataLimits(max_line_bytes=100), lines(*[{"text": "a", "label": 1}] * 2, {"text": "a" * 100})),
        (DataLimits(max_messages=2), lines(*[{"messages": CHAT}] * 2, {"messages": CHAT * 2})),
    ],
)
def test_limits(tmp_path: Path, limits: DataLimits, content: bytes) -> None:
    assert refused(tmp_path, content, limits=limits)[0].startswith("mine.jsonl:")
    assert refused(tmp_path, content, limits=limits)[0] in ("mine.jsonl:2", "mine.jsonl:3")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path(__file__) / "x"):
        with pytest.raises(DataError) as caught:
            read_jsonl(path, "clean", name="a\x1b.jsonl")
        assert caught.value.code == "data_not_found"
        assert caught.value.detail.isprintable()


@given(st.binary(max_size=200), st.sampled_from(["clean", "unlabelled", "evaluation"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: Any, content: bytes, role: DataRole) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError):
        read_jsonl(file, role, name="any")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(st.sampled_from(["text", "label", "prompt", "completion", "messages"]), json_values)


@given(st.lists(records, min_size=1, max_size=4), st.sampled_from(["clean", "unlabelled", "triggered"]))
def test_whatever_is_read_is_text(tmp_path_factory: Any, given: list[Any], role: DataRole) -> None:
    file = tmp_path_factory.getbasetemp() / "some.jsonl"
    file.write_bytes(lines(*given))
    try:
        dataset = read_jsonl(file, role, name="some")
    except DataError:
        return
    assert len(dataset.examples) == len(given)
    for example in dataset.examples:
        assert example.text.strip() or example.messages
        assert example.text.encode()
        assert isinstance(example.label, int | str | None)


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(0, 9)), min_size=1, max_size=5))
def test_texts_come_back_as_they_are(tmp_path_factory: Any, given: list[tuple[str, int]]) -> None:
    given = [(text.replace("\0", "") + "x", label) for text, label in given]
    file = tmp_path_factory.getbasetemp() / "texts.jsonl"
    file.write_bytes(lines(*({"text": text, "label": label} for text, label in given)))
    examples = read_jsonl(file, "clean", name="texts").examples
    assert [(example.text, example.label) for example in examples] == given


def test_torch_is_not_needed() -> None:
    code = "import sys, loramend.data.jsonl, loramend.data.split; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
