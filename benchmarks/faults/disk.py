"""A disk small enough to be filled."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "size=192m"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own in that folder for as long as the block runs; None where this process may
    mount none (root may, and so may who runs under `unshare --map-root-user --mount`)."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", _SIZE, "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
