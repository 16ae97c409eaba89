"""Digests of tensors on disk, remembered from run to run so that unchanged weights need not be read again."""

import hashlib
import json
import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

# A file written this recently could be written again within the clock's tick and keep its times.
SETTLED_NS = 50_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileState:
    """What tells that a file is still the same one. Times in ns. The change time cannot be set from
    outside, so a rewritten file with its old modification time put back is seen."""

    realpath: str
    size: int
    inode: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path, descriptor: int | None = None) -> "FileState":
        """The state of the file at `path`, or of the open `descriptor` to it."""
        stat = path.stat() if descriptor is None else os.fstat(descriptor)
        return cls(os.path.realpath(path), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)

    @property
    def key(self) -> str:
        """A name for a file of notes on this state."""
        fields = [self.realpath, self.size, self.inode, self.modified, self.changed]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()

    def settled(self) -> bool:
        """Whether the file has been left alone for long enough that a further write would show."""
        return time.time_ns() - max(self.modified, self.changed) > SETTLED_NS


class DigestMemo:
    """SHA-256 digests by file state and byte range, in one append-only file of JSON lines a weight file.

    Lines are short and appended by one write each, so concurrent processes may share a folder; a line that
    is torn or not as expected is passed over. A folder that cannot be written costs speed, not the run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, dict[tuple[int, int], str]] = {}

    def get(self, file: FileState, begin: int, end: int) -> str | None:
        """The digest of bytes [begin, end) of the file in this state, if known."""
        return self._of(file).get((begin, end))

    def put(self, file: FileState, begin: int, end: int, sha256: str) -> None:
        """Remember a digest; of a file written a moment ago, for this object's life only."""
        known = self._of(file)
        if known.get((begin, end)) == sha256:
            return
        known[begin, end] = sha256
        if not file.settled():
            return
        line = json.dumps({"begin": begin, "end": end, "sha256": sha256}) + "\n"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path(file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.warning("digest not remembered: %s", error)

    def _path(self, file: FileState) -> Path:
        return self._folder / f"{file.key}.jsonl"

    def _of(self, file: FileState) -> dict[tuple[int, int], str]:
        if file.key not in self._known:
            try:
                lines = self._path(file).read_bytes().splitlines()
            except OSError:
                lines = []
            self._known[file.key] = dict(entry for entry in map(_entry, lines) if entry)
        return self._known[file.key]


def _entry(line: bytes) -> tuple[tuple[int, int], str] | None:
    try:
        match json.loads(line):
            case {"begin": int(begin), "end": int(end), "sha256": str(sha256)} if _SHA256.fullmatch(sha256):
                return (begin, end), sha256
    except ValueError:
        pass
    return None
