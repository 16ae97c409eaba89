"""How a command ends: exit code 0 done, 1 refused or failed with one line on stderr, 2 usage."""

import errno
import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, ParamSpec

import typer

from loramend.cli.flags import place, remedy

if TYPE_CHECKING:
    from loramend.contracts.errors import LoramendError

CommandCode = Literal[
    "address_in_use",
    "address_refused",
    "data_folder_in_use",
    "device_unavailable",
    "interrupted",
    "not_installed",
    "not_logged_in",
    "output_exists",
    "process_failed",
    "server_unreachable",
]

P = ParamSpec("P")


class CommandError(Exception):
    """A command cannot go on for a reason of this machine's, which the service's closed list of codes leaves
    out. The message says what to do."""

    def __init__(self, code: CommandCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def printable(text: str) -> str:
    """The text on one line, its control characters escaped: names come out of untrusted files."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in joined)


def one_line(error: BaseException) -> str:
    """`loramend: CODE: what was wrong` for any error."""
    from loramend.contracts.errors import LoramendError  # pydantic takes its time: not for --help

    code: str
    match error:
        case LoramendError():
            code, message = error.code, _with_flag(error)
        case CommandError():
            code, message = error.code, str(error)
        case KeyboardInterrupt():
            code, message = "interrupted", "stopped before it was done; nothing was written"
        case MemoryError():
            code, message = "out_of_memory", "this machine has too little memory for it"
        case OSError() if error.strerror:
            where = f": {error.filename}" if error.filename else ""
            code, message = "storage_unavailable", f"{error.strerror}{where}"
        case _ if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
            code, message = "out_of_memory", "the device has too little memory for it; try --device cpu"
        case _:
            code = "internal_error"
            message = f"{type(error).__name__}: {error} (loramend --debug … shows where)"
    return printable(f"loramend: {code}: {message}")


def _with_flag(error: "LoramendError") -> str:
    """What the error says, and the flag to change where one would help."""
    where = f" [{place(error.where)}]" if error.where else ""
    flags = remedy(error.code)
    told = f"{error.detail}{where}"
    return told if flags is None or "--" in told else f"{told} (see {flags})"


def debugging() -> bool:
    """Whether tracebacks and warnings are wanted: `loramend --debug`, or LORAMEND_DEBUG=1."""
    return os.environ.get("LORAMEND_DEBUG", "") not in ("", "0")


def fails_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with every failure told in one line and exit code 1. Usage errors pass through."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        if not debugging():
            warnings.simplefilter("ignore")
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output has left; typer ends quietly
            if debugging():
                raise
            sys.stderr.write(one_line(error) + "\n")
            raise typer.Exit(1) from error

    return wrapped
