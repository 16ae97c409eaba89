"""`loramend serve`: broker, workers and API as processes of one command."""

import http.client
import importlib.util
import ipaddress
import json as stdlib_json
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from loramend.cli import options
from loramend.cli.broker import embedded_broker
from loramend.cli.datafolder import DataFolder, default_root, open_data_folder
from loramend.cli.errors import CommandError, fails_in_one_line
from loramend.cli.jobstore import has_keys
from loramend.cli.supervisor import Program, Supervisor

# Before the first /readyz: a worker imports torch, which takes its time on a busy machine.
START_SECONDS = 180.0
_TICK = 0.2

_EXAMPLE = '{"base": "BASE_MODEL"}'

# The API goes first, so that no request is cut off by a missing broker; a worker gets time for its soft
# shutdown, in which a job that cannot end goes back to its queue.
API = Program("api", (sys.executable, "-P", "-m", "service"), stop_after=15.0)
WORKERS = (
    Program("worker-io", (sys.executable, "-P", "-m", "worker", "--queues", "io"), stop_after=30.0),
    Program("worker", (sys.executable, "-P", "-m", "worker", "--queues", "spectral,train"), stop_after=30.0),
)


@fails_in_one_line
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need API keys.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    data: options.Data = None,
    model_root: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="Folder under which requests may name local models.",
        ),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            resolve_path=True,
            metavar="FILE",
            help="Bank of `loramend bank build` that every adapter is set beside.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the worker computes: cpu, cuda, cuda:1, …")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Say in one line of JSON where it listens, once it is ready.")
    ] = False,
) -> None:
    """Run the whole service here: API, workers and a broker of its own.

    Jobs and files stay in the data folder and are there again after a restart. Everything stops with this
    command, even when it is killed. The processes log into DATA/logs.
    """
    _check_installed()
    if bank:
        from loramend.bank.file import read_bank

        read_bank(bank)
    root = data or default_root()
    needs_keys = not _is_loopback(host) and not os.environ.get("LORAMEND_API_KEYS")
    if needs_keys and not root.expanduser().exists():
        raise _no_keys(host)
    port = _free_port(host, port)
    signals = _StopSignals()
    with open_data_folder(root) as folder, embedded_broker(folder) as broker:
        folder.note_holder(_url(host, port), broker.url)
        settings = {
            "LORAMEND_BROKER_URL": broker.url,
            "LORAMEND_STORAGE_URL": f"file://{folder.blobs}",  # fsspec takes no %-escapes
            "LORAMEND_SECRET_KEY": folder.secret_key(),
            "LORAMEND_WORK_DIR": str(folder.work),
            "LORAMEND_CACHE_DIR": str(folder.cache),
            "LORAMEND_HOST": host,
            "LORAMEND_PORT": str(port),
            "TMPDIR": str(folder.work),
            "PYTHONUNBUFFERED": "1",
        }
        if model_root:
            settings["LORAMEND_MODEL_ROOTS"] = stdlib_json.dumps([str(root) for root in model_root])
        if bank:
            settings["LORAMEND_BANK"] = str(bank)
        if device:
            settings["LORAMEND_DEVICE"] = device
        supervisor = Supervisor(folder.logs, {**os.environ, **settings}, say=_warn)
        await_ready = partial(
            supervisor.await_ready, seconds=START_SECONDS, stopped=lambda: signals.count > 0
        )
        try:
            supervisor.start(broker.program)
            await_ready("the broker", broker.answers)
            if needs_keys and not signals.count and not has_keys(broker.url):
                raise _no_keys(host)
            for program in (*WORKERS, API):
                supervisor.start(program)
            await_ready("the service", lambda: _is_ready(host, port))
            if not signals.count:
                _announce(_url(host, port), folder, as_json=json)
            while not signals.count:
                supervisor.tend()
                time.sleep(_TICK)
            if not json:
                typer.echo("Stopping: running jobs go back to their queue. Ctrl-C again stops at once.")
        finally:
            for names in ([API.name], [worker.name for worker in WORKERS], [broker.program.name]):
                supervisor.stop(names, hurry=lambda: signals.count > 1)


class _StopSignals:
    """Counts INT, TERM and HUP instead of dying of them."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def _check_installed() -> None:
    """Find, without importing any, what the children will import."""
    missing = [
        name
        for name in ("service", "worker", "fastapi", "celery", "torch")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise CommandError(
            "not_installed",
            f"serve needs {', '.join(missing)}, not installed here: pip install 'loramend[all]'",
        )


def _is_loopback(host: str) -> bool:
    """A name other than localhost counts as not: what it resolves to can change."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_keys(host: str) -> CommandError:
    return CommandError(
        "address_refused",
        "without LORAMEND_API_KEYS, or a key of `loramend keys create OWNER` in the same data folder, "
        f"the service listens on loopback only, and {host} is not",
    )


def _free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0, after a trial bind."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return int(trial.getsockname()[1])
    except OSError as error:
        raise CommandError(
            "address_in_use",
            f"cannot listen on {host}, port {port}: {error.strerror}; give another --port or --host",
        ) from None


def _url(host: str, port: int) -> str:
    return f"http://{_reachable(host, bracketed=True)}:{port}"


def _reachable(host: str, *, bracketed: bool = False) -> str:
    """The host under which this machine reaches it: the wildcard addresses are for listening only."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if bracketed and ":" in host else host


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=5.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _announce(url: str, folder: DataFolder, *, as_json: bool) -> None:
    if as_json:
        typer.echo(stdlib_json.dumps({"url": url, "data": str(folder.root), "pid": os.getpid()}))
        return
    typer.echo(
        f"loramend listens on {url}; jobs and logs are in {folder.root}\n"
        f"  send   loramend submit ADAPTER --base BASE_MODEL --server {url} --out repaired\n"
        f"         curl -F adapter=@adapter.zip -F request='{_EXAMPLE}' {url}/repair\n"
        f"  watch  loramend watch {url}/jobs/JOB\n"
        f"  fetch  loramend pull {url}/jobs/JOB --out repaired\n"
        f'  load   PeftModel.from_pretrained(base, "repaired/JOB"), with HF_ENDPOINT={url}\n'
        f"Ctrl-C stops it."
    )


def _warn(line: str) -> None:
    typer.echo(f"loramend: {line}", err=True)
