"""The files of a folder that may be hostile, and their digests."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loramend.adapter.digest import digest_file
from loramend.contracts.verification import Finding

_MAX_JSON_BYTES = 256 * 1024**2


class Tree:
    """Regular files by their path relative to the folder, digests taken once; no link is followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.odd: list[Finding] = []
        self.files: dict[str, Path] = {}
        for name, path in sorted(self._walk()):
            odd = Finding(code="not_a_file", path=name, detail="its name is no text")
            if odd.path != name:
                self.odd.append(odd)
            elif path.is_symlink():
                self.odd.append(Finding(code="not_a_file", path=name, detail=_LINK))
            elif path.is_file():
                self.files[name] = path
            else:
                self.odd.append(Finding(code="not_a_file", path=name, detail=_SPECIAL))
        self._digests: dict[str, str] = {}

    def _walk(self) -> Iterator[tuple[str, Path]]:
        folders = [self.folder]
        while folders:
            for path in folders.pop().iterdir():
                if path.is_dir() and not path.is_symlink():
                    folders.append(path)
                else:
                    yield path.relative_to(self.folder).as_posix(), path

    def sha256(self, name: str) -> str:
        """Of one of `files`."""
        if name not in self._digests:
            self._digests[name] = digest_file(self.files[name])[0]
        return self._digests[name]

    def document(self, name: str) -> Mapping[str, Any]:
        """A JSON object. Raises ValueError."""
        path = self.files[name]
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("too large")
        try:
            found = json.loads(path.read_bytes())
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        return found


_LINK = "a link, whose target nobody signed: fetch with `hf download ID --local-dir DIR`"
_SPECIAL = "neither a file nor a folder"
