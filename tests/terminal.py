"""Commands whose stderr is a terminal."""

import os
import pty
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple


class Ran(NamedTuple):
    """A command that ended: its status, its stdout, and what it drew on the terminal."""

    code: int
    out: str
    drawn: str


def on_terminal(command: Sequence[str | Path], seconds: float) -> Ran:
    """Run a command for at most so long with a terminal of 120 columns for its stderr.

    What is drawn is read while the command runs: a terminal that nobody reads fills up, and whoever draws on
    it then waits for ever.
    """
    master, slave = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(_read, master)
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=slave, env=env, text=True, timeout=seconds
            )
        finally:
            os.close(slave)
        return Ran(done.returncode, done.stdout, drawn.result().decode(errors="replace"))


def _read(master: int) -> bytes:
    """All that is drawn until nobody holds the other end."""
    drawn = bytearray()
    try:
        while part := os.read(master, 65_536):
            drawn += part
    except OSError:  # what Linux says of a terminal that was left
        pass
    finally:
        os.close(master)
    return bytes(drawn)
