"""JSON Lines files of text, read as the untrusted files they are. Needs no torch."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from loramend.adapter.quote import quote
from loramend.contracts.data import DataField, DataRole
from loramend.contracts.errors import DataError
from loramend.data.examples import DataKind, Dataset, Example, Message

MiB = 1 << 20

_MAIN: tuple[DataField, ...] = ("messages", "prompt", "text")
_ANSWER: dict[DataField, DataField] = {"text": "label", "prompt": "completion"}
_LABELLED: frozenset[DataRole] = frozenset({"clean", "validation"})
_TURNS = frozenset({"system", "developer", "user", "assistant", "tool"})
_MAX_LABEL = 2**31 - 1
_MAX_LABEL_LENGTH = 200
_FOREIGN = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\x28\xb5\x2f\xfd": "zstandard",
}


@dataclass(frozen=True)
class DataLimits:
    """Caps on a data file.

    max_bytes       of the file
    max_line_bytes  of one line
    max_lines       of the file, blank ones included
    max_messages    of one chat
    """

    max_bytes: int = 256 * MiB
    max_line_bytes: int = 1 * MiB
    max_lines: int = 1_000_000
    max_messages: int = 1000


@dataclass(frozen=True)
class _Form:
    """What the first line shows of all: which fields hold text and answer, as the file calls them.

    Where `answered` is False the answers are left alone, whether there are any or not.
    """

    main: DataField
    main_name: str
    answer_name: str
    answered: bool


class _DuplicateKeyError(ValueError):
    """A JSON object names a key twice; args: the key."""


class _Line:
    """One line's number, for errors that name it."""

    def __init__(self, name: str, number: int) -> None:
        self.where = f"{quote(name)}:{number}"

    def invalid(self, detail: str) -> NoReturn:
        raise DataError("data_invalid", detail, where=self.where)


def read_jsonl(
    path: Path,
    role: DataRole,
    *,
    name: str,
    fields: Mapping[DataField, str] | None = None,
    limits: DataLimits | None = None,
) -> Dataset:
    """Read one JSON object a line, UTF-8; blank lines are skipped and fields that mean nothing here ignored.

    The first line tells what the file holds, and every other must hold the same: `text` with or without
    `label`, `prompt` with or without `completion`, or chat `messages` whose last one, if it is the
    assistant's, is the answer. Under the role `unlabelled` answers are not read, under `clean` and
    `validation` they must be there, and so must the labels of texts under `evaluation` and `triggered`.

    name    what to call the file in errors and reports
    fields  ours to the file's: {"text": "sentence"} reads texts from `sentence`; where a line holds more
            than one of text, prompt and messages, the one named here counts

    Raises DataError `data_not_found`, or `data_invalid` with `<name>:<line>` as its place.
    """
    limits = limits or DataLimits()
    fields = fields or {}
    _check_fields(fields, name)
    digest = hashlib.sha256()
    form: _Form | None = None
    examples: list[Example] = []
    try:
        with path.open("rb") as file:
            for line, raw in _lines(file, name, limits, digest.update):
                record = _record(raw, line)
                form = form or _form(record, role, fields, line)
                examples.append(_example(record, form, line, limits))
                _check_alike(examples[0], examples[-1], line)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise DataError("data_not_found", f"There is no file {quote(name)}.", where=quote(name)) from None
    if form is None:
        raise DataError("data_invalid", "The file is empty: give one JSON object a line.", where=quote(name))
    return Dataset(role, name, digest.hexdigest(), _kind(form), tuple(examples))


def _check_fields(fields: Mapping[DataField, str], name: str) -> None:
    """A field map that cannot be meant."""
    if len(mains := [field for field in _MAIN if field in fields]) > 1:
        detail = f"The field map names both {' and '.join(mains)}: name the one to read."
    elif len(set(fields.values())) < len(fields):
        detail = "The field map names one field of the file twice."
    else:
        return
    raise DataError("data_invalid", detail, where=quote(name))


def _lines(
    file: BinaryIO, name: str, limits: DataLimits, update: Callable[[bytes], None]
) -> Iterator[tuple[_Line, bytes]]:
    """Each line that is not blank, the whole file's bytes passed to `update`."""
    number = done = 0
    while raw := file.readline(limits.max_line_bytes + 1):
        update(raw)
        number += 1
        done += len(raw)
        line = _Line(name, number)
        if number == 1:
            raw = _checked_start(raw, line)
        if number > limits.max_lines:
            line.invalid(f"The file has more than {limits.max_lines:,} lines: give fewer.")
        if done > limits.max_bytes:
            line.invalid(f"The file has more than {limits.max_bytes:,} bytes: give fewer lines.")
        if len(raw) > limits.max_line_bytes:
            line.invalid(f"The line has more than {limits.max_line_bytes:,} bytes: shorten or drop it.")
        if raw.strip():
            yield line, raw


def _checked_start(raw: bytes, line: _Line) -> bytes:
    """The first line without its byte order mark, once it is no file of another format."""
    for magic, format_name in _FOREIGN.items():
        if raw.startswith(magic):
            line.invalid(f"This is a {format_name} file: give plain JSON Lines, one JSON object a line.")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if raw.lstrip().startswith(b"["):
        line.invalid("This is a JSON array: write its objects one a line, without brackets and commas.")
    return raw


def _record(raw: bytes, line: _Line) -> dict[str, Any]:
    """The line's object: no duplicate keys, NaN, infinity or numbers of endless digits."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line.invalid(f"Byte {error.start + 1} of the line is not UTF-8: save the file as UTF-8.")
    if "\0" in text:
        line.invalid("The line holds a NUL byte: save the file as UTF-8 text.")
    try:
        record = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer)
    except _DuplicateKeyError as error:
        line.invalid(f"The line has the field {quote(str(error.args[0]))} twice: leave one.")
    except json.JSONDecodeError as error:
        line.invalid(f"The line is not JSON: {error.msg} at column {error.colno}. Write one object a line.")
    except RecursionError:
        line.invalid("The line is nested too deeply.")
    except ValueError as error:
        line.invalid(f"The line is not JSON: {quote(str(error))}.")
    if not isinstance(record, dict):
        line.invalid(f'The line holds {_kind_of(record)}, not an object such as {{"text": …}}.')
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number JSON knows")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _form(record: dict[str, Any], role: DataRole, fields: Mapping[DataField, str], line: _Line) -> _Form:
    """What kind of lines these are, told by the first."""

    def present(name: str) -> bool:
        return record.get(name) is not None

    mapped = [field for field in _MAIN if field in fields]
    mains = mapped or [field for field in _MAIN if present(field)]
    if len(mains) > 1:
        line.invalid(
            f"The line holds {' and '.join(mains)}: say which is meant with a field map, such as "
            f"{mains[0]}={mains[0]}."
        )
    if not mains or not present(fields.get(mains[0], mains[0])):
        wanted = f"the field {quote(fields[mains[0]])}" if mains else "text, prompt or messages"
        held = ", ".join(quote(key, 40) for key in list(record)[:10]) or "none"
        line.invalid(f"The line lacks {wanted}; its fields are: {held}. Map them with a field map.")
    main = mains[0]
    answer = _ANSWER.get(main)
    answer_name = fields.get(answer, answer) if answer else ""
    required = role in _LABELLED or (main == "text" and role != "unlabelled")
    if main == "messages":
        last = record[fields.get(main, main)]
        has_answer = isinstance(last, list) and bool(last) and _is_assistant(last[-1])
    else:
        has_answer = present(answer_name)
        if answer in fields and not has_answer and role != "unlabelled":
            line.invalid(f"The line lacks the field {quote(answer_name)}, which the field map names.")
    return _Form(main, fields.get(main, main), answer_name, required or (has_answer and role != "unlabelled"))


def _example(record: dict[str, Any], form: _Form, line: _Line, limits: DataLimits) -> Example:
    if form.main == "messages":
        return _chat(record.get(form.main_name), form, line, limits)
    text = _text(record.get(form.main_name), form.main_name, line)
    if not form.answered:
        return Example(text, is_prompt=form.main == "prompt")
    answer = record.get(form.answer_name)
    if answer is None:
        line.invalid(
            f"The line has no {quote(form.answer_name)}, which every line needs here: add it or drop "
            "the line. Text without answers is given as unlabelled."
        )
    if form.main == "prompt":
        return Example(text, completion=_text(answer, form.answer_name, line))
    return Example(text, label=_label(answer, form.answer_name, line))


def _chat(value: object, form: _Form, line: _Line, limits: DataLimits) -> Example:
    """The turns before the assistant's last, which is the answer."""
    name = quote(form.main_name)
    if not isinstance(value, list) or not value:
        line.invalid(f"{name} is {_kind_of(value)}, not a list of messages with role and content.")
    if len(value) > limits.max_messages:
        line.invalid(f"{name} has more than {limits.max_messages} messages: shorten or drop it.")
    turns = []
    for index, item in enumerate(value):
        place = f"{name}[{index}]"
        if not isinstance(item, dict):
            line.invalid(f"{place} is {_kind_of(item)}, not a message with role and content.")
        role = item.get("role")
        if not isinstance(role, str) or role not in _TURNS:
            line.invalid(f"{place} has the role {_shown(role)}; known are {', '.join(sorted(_TURNS))}.")
        turns.append(Message(role, _text(item.get("content"), f"{place}.content", line)))
    answer = turns.pop() if turns[-1].role == "assistant" else None
    if not turns:
        line.invalid(f"{name} holds an answer and no message before it.")
    if not form.answered:
        return Example("", messages=tuple(turns))
    if answer is None:
        line.invalid(f"{name} does not end with the assistant's message, which is the answer needed here.")
    return Example("", completion=answer.content, messages=tuple(turns))


def _text(value: object, name: str, line: _Line) -> str:
    """Text that a tokenizer can take and a report can quote."""
    if not isinstance(value, str):
        line.invalid(f"{quote(name)} is {_kind_of(value)}, not a string.")
    if not value.strip():
        line.invalid(f"{quote(name)} is empty: drop the line.")
    if "\0" in value:
        line.invalid(f"{quote(name)} holds a NUL character: drop it.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        line.invalid(f"{quote(name)} holds half of a surrogate pair, which is no text.")
    return value


def _label(value: object, name: str, line: _Line) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        line.invalid(f"{quote(name)} is {_kind_of(value)}: a label is a whole number or a string.")
    if isinstance(value, int):
        if not 0 <= value <= _MAX_LABEL:
            line.invalid(f"{quote(name)} is {value}; labels count from 0, and -1 often stands for none.")
        return value
    if len(value) > _MAX_LABEL_LENGTH:
        line.invalid(f"{quote(name)} has over {_MAX_LABEL_LENGTH} characters: it is no label's name.")
    return _text(value, name, line)


def _check_alike(first: Example, this: Example, line: _Line) -> None:
    if type(first.label) is not type(this.label):
        line.invalid(
            f"The label is {_kind_of(this.label)} and the first line's is {_kind_of(first.label)}: "
            "write them all alike."
        )


def _kind(form: _Form) -> DataKind:
    match form.main:
        case "messages":
            return "chat"
        case "prompt":
            return "completion"
        case _:
            return "classification" if form.answered else "text"


def _is_assistant(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _shown(value: object) -> str:
    return quote(value, 40) if isinstance(value, str) else _kind_of(value)


def _kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    kinds: dict[type, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number with a fraction",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "missing or null")
