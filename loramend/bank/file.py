"""Bank files: written whole and the same every time, read under caps."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from loramend.adapter.limits import MiB
from loramend.adapter.quote import quote
from loramend.contracts.bank import Bank
from loramend.contracts.errors import BankError

MAX_BYTES = 256 * MiB
_REMEDY = "Build it again with loramend bank build."


@dataclass(frozen=True)
class OpenBank:
    """A bank as read; sha256 is the file's."""

    name: str
    sha256: str
    bank: Bank


def bank_text(bank: Bank) -> str:
    """The file's content. Raises BankError `bank_invalid` where it would be too large to be read again."""
    text = bank.model_dump_json(indent=1) + "\n"
    if len(text.encode()) > MAX_BYTES:
        raise BankError("bank_invalid", f"A bank of so many modules is over {MAX_BYTES} bytes: take fewer.")
    return text


def read_bank(path: Path, max_bytes: int = MAX_BYTES) -> OpenBank:
    """The bank in a file.

    Raises BankError `bank_not_found` where there is no such file, `bank_invalid` where it is no bank of this
    version, is over `max_bytes`, or holds what is no finite statistic.
    """
    path = path.expanduser()
    where = path.name
    if not path.is_file():
        raise BankError("bank_not_found", f"There is no bank file {quote(str(path))}. {_REMEDY}", where=where)
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise BankError("bank_invalid", f"The bank is larger than {max_bytes} bytes. {_REMEDY}", where=where)
    try:
        bank = Bank.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise BankError(
            "bank_invalid",
            f"The file is not a bank of this version{f', at {quote(place)}' if place else ''}: "
            f"{quote(first['msg'])}. {_REMEDY}",
            where=where,
        ) from None
    _check(bank, where)
    return OpenBank(path.name, hashlib.sha256(raw).hexdigest(), bank)


def _check(bank: Bank, where: str) -> None:
    """An adapter that is counted twice would count twice in every quantile."""
    if len({adapter.sha256 for adapter in bank.adapters}) < len(bank.adapters):
        raise BankError("bank_invalid", f"The bank holds the same weights twice. {_REMEDY}", where=where)
    for index, adapter in enumerate(bank.adapters):
        if len({module.name for module in adapter.modules}) < len(adapter.modules):
            raise BankError(
                "bank_invalid", f"Adapter {index} of the bank names a module twice. {_REMEDY}", where=where
            )
