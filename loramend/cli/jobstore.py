"""The job store of a service, from the command line: a process of the service's own works on it."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from loramend.cli.broker import embedded_broker
from loramend.cli.datafolder import DataFolder, default_root, noted_broker, open_data_folder
from loramend.cli.errors import CommandError
from loramend.cli.supervisor import Supervisor

_START_SECONDS = 60.0  # an append-only file may be long


@contextmanager
def reached(data: Path | None) -> Iterator[str]:
    """URL of the broker that holds the keys: that of the `loramend serve` which runs on the folder, else one
    started on it for as long as the block; without a folder, LORAMEND_BROKER_URL where it is set.

    Raises CommandError `not_installed`, `data_folder_in_use`, `process_failed`.
    """
    url = os.environ.get("LORAMEND_BROKER_URL") if data is None else None
    root = (data or default_root()).expanduser().absolute()
    url = url or noted_broker(root)
    if url is not None:
        yield url
        return
    with open_data_folder(root) as folder:
        folder.forget_holder()
        with _started(folder) as started:
            yield started


def ask_keys(broker_url: str, *arguments: str) -> str:
    """The JSON answer of `python -m service.keys`.

    Raises its refusals, and CommandError `not_installed` or `process_failed`.
    """
    if importlib.util.find_spec("service") is None or importlib.util.find_spec("redis") is None:
        raise CommandError("not_installed", "keys needs the service: pip install 'loramend[service]'")
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "service.keys", *arguments],
        env={**os.environ, "LORAMEND_BROKER_URL": broker_url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise _refusal(done)
    return done.stdout


def has_keys(broker_url: str) -> bool:
    """Whether the job store holds an API key that has not expired."""
    from loramend.contracts.keys import ApiKeys

    keys = ApiKeys.model_validate_json(ask_keys(broker_url, "list")).keys
    return any(not key.expired(datetime.now(UTC)) for key in keys)


def _refusal(done: "subprocess.CompletedProcess[str]") -> Exception:
    from pydantic import ValidationError

    from loramend.contracts.errors import LoramendError, Problem

    try:
        problem = Problem.model_validate_json(done.stdout)
    except ValidationError:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return CommandError("process_failed", f"the job store could not be asked: {said[0][:300]}")
    return LoramendError(problem.code, problem.detail)


@contextmanager
def _started(folder: DataFolder) -> Iterator[str]:
    with embedded_broker(folder) as broker:
        supervisor = Supervisor(folder.logs, os.environ, say=lambda _: None)
        supervisor.start(broker.program)
        try:
            supervisor.await_ready("the broker", broker.answers, seconds=_START_SECONDS)
            yield broker.url
        finally:
            supervisor.stop([broker.program.name])
