"""The supervisor, over small real processes."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from loramend.cli import supervisor as module
from loramend.cli.errors import CommandError
from loramend.cli.supervisor import Program, Supervisor

pytestmark = pytest.mark.e2e


def python(name: str, code: str, stop_after: float = 10.0) -> Program:
    return Program(name, (sys.executable, "-c", textwrap.dedent(code)), stop_after=stop_after)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path, {**os.environ, "PYTHONUNBUFFERED": "1"}, say=said.append, first_delay=0.1)
    yield made
    made.stop_all()


SLEEP = "import time; print('up'); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"


def up(supervisor: Supervisor, name: str) -> bool:
    return "up" in supervisor.log(name).read_text()


def test_a_child_gets_its_stdin_and_logs_into_its_file(supervisor: Supervisor) -> None:
    supervisor.start(
        Program("echo", (sys.executable, "-c", "import sys; print(sys.stdin.read())"), stdin=b"hello")
    )
    eventually(lambda: "hello" in supervisor.log("echo").read_text())


def test_stop_ends_a_willing_child_with_term(supervisor: Supervisor) -> None:
    supervisor.start(python("sleep", SLEEP))
    eventually(lambda: up(supervisor, "sleep"))
    pid = supervisor.pids()["sleep"]
    begun = time.monotonic()
    supervisor.stop(["sleep"])
    assert not running(pid)
    assert time.monotonic() - begun < 5


def test_stop_kills_a_child_that_ignores_term_and_what_it_started(supervisor: Supervisor) -> None:
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {DEAF!r}]).pid); {DEAF}"
    supervisor.start(python("deaf", code, stop_after=0.3))
    eventually(lambda: supervisor.log("deaf").read_text().count("up") == 2)
    said_pids = [int(word) for word in supervisor.log("deaf").read_text().split() if word.isdigit()]
    pids = [supervisor.pids()["deaf"], *said_pids]
    assert len(pids) == 2
    supervisor.stop(["deaf"])
    eventually(lambda: not any(map(running, pids)))


def test_hurry_ends_the_wait(supervisor: Supervisor) -> None:
    supervisor.start(python("deaf", DEAF, stop_after=600))
    eventually(lambda: up(supervisor, "deaf"))
    begun = time.monotonic()
    supervisor.stop(["deaf"], hurry=lambda: time.monotonic() - begun > 0.2)
    assert time.monotonic() - begun < 5


def test_a_crashed_child_is_started_again_later_and_later(supervisor: Supervisor, said: list[str]) -> None:
    supervisor.start(python("crash", "print('started'); raise SystemExit(3)"))
    begun = time.monotonic()
    while supervisor.log("crash").read_text().count("started") < 4:
        supervisor.tend()
        assert time.monotonic() - begun < 20
        time.sleep(0.02)
    assert time.monotonic() - begun >= 0.1 + 0.2 + 0.4
    assert "exit code 3" in said[0]


def test_what_a_crashed_child_started_is_gone_before_it_starts_again(supervisor: Supervisor) -> None:
    """The pool of a worker whose parent was killed must not go on beside the new one's."""
    code = f"""
        import os, signal, subprocess, sys
        print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    supervisor.start(python("parent", code))
    eventually(lambda: any(word.isdigit() for word in supervisor.log("parent").read_text().split()))
    left = next(int(word) for word in supervisor.log("parent").read_text().split() if word.isdigit())
    assert running(left)

    def swept() -> bool:
        supervisor.tend()
        return not running(left)

    eventually(swept)


def test_check_started_tells_what_the_child_said_last(supervisor: Supervisor) -> None:
    supervisor.start(python("broken", "import sys; sys.exit('the reason\\n')"))

    def checked() -> bool:
        supervisor.check_started()
        return False

    with pytest.raises(CommandError, match=r"broken ended while starting \(exit code 1\): the reason"):
        eventually(checked)


def test_a_log_that_grows_is_cut(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 1000)
    supervisor.start(
        python("talker", "import time\nwhile True: print('x' * 99); time.sleep(0.001)", stop_after=0)
    )
    eventually(lambda: supervisor.log("talker").stat().st_size > 1000)
    supervisor.tend()
    rotated = supervisor.log("talker").with_suffix(".log.1")
    assert rotated.stat().st_size > 1000
    size = supervisor.log("talker").stat().st_size
    eventually(lambda: supervisor.log("talker").stat().st_size > size)
    assert not supervisor.log("talker").read_bytes().startswith(b"\0"), "the child writes at its old offset"


PARENT = """
    import os, sys, time
    from pathlib import Path
    from loramend.cli.supervisor import Program, Supervisor
    supervisor = Supervisor(Path(sys.argv[1]), os.environ, say=print)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    for name in ("one", "two"):
        supervisor.start(Program(name, (sys.executable, "-c", deaf)))
    print(*supervisor.pids().values(), flush=True)
    time.sleep(600)
"""


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(running, pids))
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not any(map(running, pids)), 3.0)


def test_ctrl_c_does_not_reach_the_children(supervisor: Supervisor) -> None:
    """A terminal sends INT to the foreground process group; each child leads a group of its own."""
    supervisor.start(python("sleep", SLEEP))
    pid = supervisor.pids()["sleep"]
    assert os.getpgid(pid) == pid != os.getpgid(0)
