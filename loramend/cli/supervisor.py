"""Child processes: started, logged, restarted when they crash, and stopped together.

Every child leads a process group of its own, so that Ctrl-C reaches the supervisor alone and the order of
stopping is its to choose; and the kernel kills it when the supervisor ends. Single-threaded on purpose:
children are forked from the main thread, which is the one whose end the kernel watches.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loramend.cli.errors import CommandError, printable
from loramend.procs import die_with_parent

LONGEST_DELAY = 30.0  # seconds before a restart
STEADY = 60.0  # seconds a child must have run for its next crash to count as the first
LOG_BYTES = 10 * 2**20  # a log is moved to `.1` beyond this size
_TICK = 0.05


@dataclass(frozen=True)
class Program:
    """What to run.

    stdin       sent to every start of it
    stop_after  seconds from TERM to KILL
    pass_fds    file descriptors it inherits
    """

    name: str
    command: tuple[str, ...]
    stdin: bytes = b""
    stop_after: float = 10.0
    pass_fds: tuple[int, ...] = ()


@dataclass
class _Child:
    program: Program
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    crashes: int = 0  # in a row
    due: float = 0.0  # when to start it again, on the monotonic clock


class Supervisor:
    """Runs programs with one environment, each logging into `logs/NAME.log`.

    say          told, in one line, of every crash
    first_delay  seconds before the first restart, doubled with every further crash in a row
    """

    def __init__(
        self, logs: Path, env: Mapping[str, str], say: Callable[[str], None], first_delay: float = 1.0
    ) -> None:
        self._logs = logs
        self._env = dict(env)
        self._say = say
        self._first_delay = first_delay
        self._children: dict[str, _Child] = {}

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def start(self, program: Program) -> None:
        child = self._children[program.name] = _Child(program)
        self._launch(child)

    def pids(self) -> dict[str, int]:
        """The running children."""
        return {name: child.process.pid for name, child in self._children.items() if child.process}

    def check_started(self) -> None:
        """Raise CommandError `process_failed` where a child has ended: another start would not help."""
        for name, child in self._children.items():
            if child.process and _has_exited(child.process):
                code = _sweep(child.process)
                child.process = None
                raise CommandError(
                    "process_failed",
                    f"{name} ended while starting ({_ending(code)}): {self._last_line(name)} "
                    f"[{self.log(name)}]",
                )

    def await_ready(
        self,
        what: str,
        ready: Callable[[], bool],
        *,
        seconds: float,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait until it is ready or `stopped`. Raises CommandError `process_failed` where a child has ended,
        or the time is over."""
        deadline = time.monotonic() + seconds
        while not stopped() and not ready():
            self.check_started()
            if time.monotonic() >= deadline:
                raise CommandError("process_failed", f"{what} was not ready within {seconds:.0f} s")
            time.sleep(_TICK)

    def tend(self) -> None:
        """Restart what has crashed, once its delay is over, and keep the logs short."""
        now = time.monotonic()
        for name, child in self._children.items():
            _rotate(self.log(name))
            if child.process and _has_exited(child.process):
                code = _sweep(child.process)
                child.process = None
                child.crashes = 1 if now - child.started >= STEADY else child.crashes + 1
                delay = min(self._first_delay * 2 ** min(child.crashes - 1, 10), LONGEST_DELAY)
                child.due = now + delay
                self._say(
                    f"{name} ended ({_ending(code)}); starting it again in {delay:.0f} s "
                    f"(see {self.log(name)})"
                )
            elif child.process is None and now >= child.due:
                self._launch(child)

    def stop(self, names: Iterable[str], *, hurry: Callable[[], bool] = lambda: False) -> None:
        """TERM to these, wait for each as long as its program says, then KILL to it and all it started.

        hurry  asked while waiting; true ends the wait
        """
        stopping = [child for name in names if (child := self._children.pop(name, None)) and child.process]
        for child in stopping:
            assert child.process is not None
            os.kill(child.process.pid, signal.SIGTERM)  # Popen.terminate would reap one that has just ended
        begun = time.monotonic()
        while stopping:
            waited = time.monotonic() - begun
            for child in list(stopping):
                assert child.process is not None
                if _has_exited(child.process) or hurry() or waited >= child.program.stop_after:
                    _sweep(child.process)
                    stopping.remove(child)
            time.sleep(_TICK)

    def stop_all(self) -> None:
        """KILL to whatever still runs."""
        self.stop(list(self._children), hurry=lambda: True)

    def _launch(self, child: _Child) -> None:
        program = child.program
        with self.log(program.name).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own programs
                program.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                pass_fds=program.pass_fds,
                start_new_session=True,
                # Safe here: there is one thread, and the function makes system calls only.
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        child.process, child.started = process, time.monotonic()
        assert process.stdin is not None
        try:
            process.stdin.write(program.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, which the next look at it finds

    def _last_line(self, name: str) -> str:
        """The last thing it said, cut to a line's length."""
        with self.log(name).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
        said = [line for line in lines if line.strip()]
        return printable(said[-1])[:300] if said else "it said nothing"


def _has_exited(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it has ended. It stays a zombie, so that its process group's number is not given away."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _sweep(process: "subprocess.Popen[bytes]") -> int:
    """KILL to the whole group; the leader's exit status."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _rotate(log: Path) -> None:
    """Copy, then cut: the child keeps its file descriptor, which appends."""
    try:
        if log.stat().st_size > LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)
    except FileNotFoundError:
        return
