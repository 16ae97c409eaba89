"""Temporary files and folders that tell whether somebody still uses them: their maker holds a lock on them,
which the kernel takes away when the maker ends, however it ends."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path


def claim(descriptor: int) -> bool:
    """Hold what is open there for as long as it stays open. False where it was removed meanwhile: make
    another. Where the file system has no locks nothing is held, and nothing is removed either."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


def own_folder(prefix: str) -> tuple[Path, int]:
    """A new folder in the system's temporary one, and the descriptor that holds it: to be closed once it is
    removed. Those of that prefix whose processes were killed are removed first."""
    remove_abandoned(Path(tempfile.gettempdir()), f"{prefix}*")
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # taken for abandoned by another that starts now
            continue
        if claim(descriptor):
            return path, descriptor
        os.close(descriptor)


def remove_abandoned(folder: Path, pattern: str = "*", *, idle_seconds: float = 0.0) -> None:
    """Remove what is there under such names, files and folders, and nobody holds. What others remove at the
    same time is no error.

    idle_seconds  only what has not changed for so long: for folders that machines share, whose file system
                  may keep each machine's locks from the others
    """
    for path in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= idle_seconds:
                _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Removed under the lock, so that whoever waits for it sees that it is gone.
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)
