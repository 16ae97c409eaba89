"""Where requests' bodies lie while they are taken in."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loramend.leftovers import own_folder


class Spool:
    """A folder of this server's own in the system's temporary one, made when it is first needed. What a
    server that was killed has left there is removed then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[Path, int] | None = None

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder, for as long as the block runs."""
        made = Path(tempfile.mkdtemp(dir=self.open()))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def open(self) -> Path:
        """Make the server's folder, where that is not done yet."""
        with self._lock:
            if self._open is None:
                self._open = own_folder("loramend-api-")
            return self._open[0]

    def close(self) -> None:
        """Remove it."""
        with self._lock:
            if self._open is not None:
                path, descriptor = self._open
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)
                self._open = None
