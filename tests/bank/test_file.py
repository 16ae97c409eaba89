"""Bank files: what is read again is what was written, and what is no bank is refused with its place."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramend.bank import file as file_module
from loramend.bank.file import bank_text, read_bank
from loramend.contracts.bank import Bank
from loramend.contracts.errors import BankError
from tests.bank.adapters import many, opened

GOOD: dict[str, Any] = json.loads(bank_text(opened(many(2)).bank))


def refused(file: Path, content: str | bytes) -> BankError:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BankError) as caught:
        read_bank(file)
    assert caught.value.code == "bank_invalid"
    assert caught.value.where == file.name
    assert "loramend bank build" in caught.value.detail
    return caught.value


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The good bank after a change."""
    copy: dict[str, Any] = json.loads(json.dumps(GOOD))
    change(copy)
    return json.dumps(copy)


def statistics(bank: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bank["adapters"][1]["modules"][2]["statistics"]
    return found


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    bank = Bank(adapters=tuple(many(3)))
    file = tmp_path / "bank.json"
    file.write_text(bank_text(bank))
    assert (read_bank(file).bank, read_bank(file).name) == (bank, "bank.json")
    assert bank_text(read_bank(file).bank) == file.read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        b"\x80\x04\x95",
        b"[" * 100_000,
        b'{"adapters": ' * 10_000,
        b'{"adapters": []}',
        b'{"kind": "loramend-bank", "schema_version": "1.0", "adapters": [{"name": "\\ud800"}]}',
        json.dumps({"schema_version": "1.1", "kind": "inspect"}).encode(),
    ],
)
def test_what_is_no_bank(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "bank.json", content)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda bank: bank.update(schema_version="2.0"), "schema_version"),
        (lambda bank: bank.update(kind="other"), "kind"),
        (lambda bank: bank.update(adapters=[]), "adapters"),
        (lambda bank: bank.update(extra=1), "extra"),
        (lambda bank: statistics(bank).update(norm=float("nan")), "adapters/1/modules/2/statistics/norm"),
        (lambda bank: statistics(bank).update(norm=float("inf")), "statistics/norm"),
        (lambda bank: statistics(bank).update(norm=-1.0), "statistics/norm"),
        (lambda bank: statistics(bank).update(norm=1e200), "statistics/norm"),
        (lambda bank: statistics(bank).update(norm="much"), "statistics/norm"),
        (lambda bank: statistics(bank).update(norm=None), "statistics/norm"),
        (lambda bank: statistics(bank).update(top_rows=1.5), "statistics/top_rows"),
        (lambda bank: statistics(bank).pop("kurtosis"), "statistics/kurtosis"),
        (lambda bank: bank["adapters"][0].update(modules=[]), "adapters/0/modules"),
        (lambda bank: bank["adapters"][0].update(files=[]), "adapters/0/files"),
        (lambda bank: bank["adapters"][0].update(name="x" * 1000), "adapters/0/name"),
        (lambda bank: bank["adapters"][0]["modules"][0].update(shape=[0, 4]), "shape"),
        (lambda bank: bank["adapters"][0]["modules"][0].update(rank=2**80), "rank"),
        (lambda bank: bank["adapters"].append(bank["adapters"][0]), "twice"),
        (
            lambda bank: bank["adapters"][0]["modules"].append(bank["adapters"][0]["modules"][0]),
            "module twice",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], place: str
) -> None:
    assert place in refused(tmp_path / "bank.json", changed(change)).detail


def test_no_bank_is_written_that_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "MAX_BYTES", 100)
    with pytest.raises(BankError, match="take fewer"):
        bank_text(opened(many(2)).bank)


def test_a_file_over_the_cap_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "bank.json"
    file.write_text(bank_text(opened(many(2)).bank))
    with pytest.raises(BankError, match="larger than 100 bytes"):
        read_bank(file, max_bytes=100)


@pytest.mark.parametrize("name", ["none.json", "."])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(BankError) as caught:
        read_bank(tmp_path / name)
    assert caught.value.code == "bank_not_found"


@given(data=st.data())
def test_no_other_error_escapes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bytes of a good bank exchanged, cut out or put in."""
    text = bytearray(json.dumps(GOOD).encode())
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    text[start:end] = data.draw(st.binary(max_size=20))
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_bytes(text)
    with contextlib.suppress(BankError):
        read_bank(file)
