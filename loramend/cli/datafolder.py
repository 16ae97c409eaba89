"""The folder in which `loramend serve` keeps everything."""

import base64
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loramend.cli.errors import CommandError

# A killed server's broker holds the lock until the kernel has killed it too.
_LOCK_SECONDS = 3.0


@dataclass(frozen=True)
class DataFolder:
    """Paths inside the folder, and the descriptor of its lock."""

    root: Path
    lock: int

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def broker(self) -> Path:
        return self.root / "valkey"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def secret_key(self) -> str:
        """The Fernet key that encrypts Hub tokens: made on first use, readable by its owner only."""
        file = self.root / "secret.key"
        if not file.exists():
            made = file.with_suffix(".new")
            made.unlink(missing_ok=True)
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(base64.urlsafe_b64encode(os.urandom(32)))
            made.rename(file)
        return file.read_text(encoding="ascii").strip()

    def note_holder(self, url: str, broker: str | None = None) -> None:
        """Write down who holds the lock, for the message that a second server gives, and the broker's URL,
        for `loramend keys`. Like the secret key, it is for the owner's eyes only."""
        os.truncate(self.lock, 0)
        noted = {"pid": os.getpid(), "url": url, "broker": broker}
        os.pwrite(self.lock, json.dumps(noted).encode(), 0)

    def forget_holder(self) -> None:
        """Take out what a server before left written there."""
        os.truncate(self.lock, 0)


def default_root() -> Path:
    """XDG's data folder for loramend."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "loramend"


@contextmanager
def open_data_folder(root: Path) -> Iterator[DataFolder]:
    """Make the folder where needed and hold its lock. A process that inherits `lock` holds it too.

    Raises CommandError `data_folder_in_use`, and OSError where the folder cannot be made or written.
    """
    root = root.expanduser().absolute()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(root / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(root, lock)
        folder = DataFolder(root, lock)
        shutil.rmtree(folder.work, ignore_errors=True)  # what a killed server was working on
        for part in (folder.blobs, folder.broker, folder.cache, folder.logs, folder.work):
            part.mkdir(mode=0o700, exist_ok=True)
        yield folder
    finally:
        os.close(lock)


def noted_broker(root: Path) -> str | None:
    """URL of the broker that holds the folder's lock; None where none does, or has not said so yet."""
    try:
        lock = os.open(root / "serve.lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        broker = _noted(lock).get("broker")
        return broker if isinstance(broker, str) else None
    finally:
        os.close(lock)
    return None


def _acquire(root: Path, lock: int) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise CommandError(
                    "data_folder_in_use",
                    f"another loramend serve{_holder(lock)} uses {root}: stop it, or give another --data",
                ) from None
            time.sleep(0.1)


def _holder(lock: int) -> str:
    noted = _noted(lock)
    return f" (process {noted['pid']}, {noted['url']})" if noted.keys() >= {"pid", "url"} else ""


def _noted(lock: int) -> dict[str, Any]:
    try:
        noted = json.loads(os.pread(lock, 8192, 0))
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}
