"""Where the members of an archive may be written, under caps that are counted while they are."""

import unicodedata
from pathlib import Path
from typing import Protocol

from loramend.adapter.limits import Limits, MiB
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

_MAX_DEPTH = 32


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Unpacking:
    """Where members go, and how much more may come."""

    def __init__(self, into: Path, archive_bytes: int, limits: Limits, where: str) -> None:
        self.limits = limits
        self.where = where
        self._into = into
        self._allowed = min(
            limits.max_unpacked_bytes, max(limits.ratio_free_bytes, int(limits.max_ratio * archive_bytes))
        )
        self._written = 0
        self._members = 0
        self._seen: dict[str, bool] = {}  # folded name -> is a folder

    def member(self, name: str, *, folder: bool) -> Path:
        """The path a member is written to. Each name comes once; only folders lie above other members."""
        self._one_more()
        parts = self._safe_parts(name)
        if folder and not parts:
            return self._into
        if not parts:
            raise self.unsafe(name, "has no name")
        folded = [unicodedata.normalize("NFC", part).casefold() for part in parts]
        for depth in range(1, len(parts)):
            above = "/".join(folded[:depth])
            if above not in self._seen:
                self._one_more()  # else 2000 deep names would make half a million folders
                self._seen[above] = True
            if not self._seen[above]:
                raise self.unsafe(name, "lies below a file")
        key = "/".join(folded)
        if key in self._seen and not (folder and self._seen[key]):
            raise self.unsafe(name, "comes twice (upper and lower case count as the same)")
        self._seen[key] = folder
        path = self._into.joinpath(*parts)
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
        return path

    def write(self, source: Source, path: Path) -> None:
        with path.open("xb") as target:
            while chunk := source.read(MiB):
                self.count(len(chunk))
                target.write(chunk)

    def count(self, size: int) -> None:
        """Bytes that came out of the archive."""
        self._written += size
        if self._written > self._allowed:
            raise self.too_large(f"more than {self._allowed} bytes")

    def _one_more(self) -> None:
        self._members += 1
        if self._members > self.limits.max_members:
            raise self.too_large(f"more than {self.limits.max_members} members")

    def too_large(self, what: str) -> AdapterError:
        return AdapterError("archive_too_large", f"The archive unpacks to {what}.", where=self.where)

    def unsafe(self, name: str, why: str) -> AdapterError:
        return AdapterError(
            "archive_unsafe",
            f"Member {quote(name)} {why}. Pack plain files, each once, under relative names.",
            where=self.where,
        )

    def _safe_parts(self, name: str) -> list[str]:
        if len(name) > self.limits.max_path_length:
            raise self.unsafe(name, f"has a name of more than {self.limits.max_path_length} characters")
        if not name.isprintable() or "\\" in name or ":" in name:
            raise self.unsafe(name, "has a name with a backslash, a colon or a control character")
        if name.startswith("/"):
            raise self.unsafe(name, "has an absolute name")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.unsafe(name, "leaves its folder")
        if len(parts) > _MAX_DEPTH:
            raise self.unsafe(name, f"lies below more than {_MAX_DEPTH} folders")
        if any(len(part.encode()) > 255 for part in parts):
            raise self.unsafe(name, "has a name that file systems do not take")
        return parts
