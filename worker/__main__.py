"""`python -m worker --queues io,spectral,train`: one worker, running one job at a time."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
import warnings
from multiprocessing.util import Finalize

from pydantic import ValidationError

from loramend.bank.file import read_bank
from loramend.cli.hub.environment import environment
from loramend.contracts.errors import BankError, SigningError
from loramend.leftovers import own_folder
from loramend.signing.keys import check_private_key, is_installed
from service.jobs.records import QUEUES, Queue
from service.jobs.settings import explain
from service.logs import configure
from worker.settings import WorkerSettings

# Finalizers with higher numbers run before.
_LAST = -1000


def main() -> int:
    """Work until TERM or INT. Returns 1 where the settings are wrong, saying so on stderr."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument(
        "--queues",
        type=_queues,
        default=QUEUES,
        help=f"which queues to serve, joined by commas: {', '.join(QUEUES)}",
    )
    queues: tuple[Queue, ...] = parser.parse_args().queues
    try:
        settings = WorkerSettings()
        if settings.bank is not None and queues != ("io",):
            read_bank(settings.bank)
    except ValidationError as error:
        print(explain(error), file=sys.stderr)  # noqa: T201
        return 1
    except BankError as error:
        print(f"LORAMEND_BANK: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if problem := _sign_key_problem(settings):
        print(f"LORAMEND_SIGN_KEY: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    os.environ.update(environment(settings.hub_endpoint))
    configure(settings.log_level)
    logging.getLogger("worker").setLevel(settings.log_level.upper())
    # In a container root is who there is; the messages are JSON, so nothing is unpickled.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    settings.cache_dir.mkdir(parents=True, exist_ok=True)

    # Libraries put into the system's temporary folder what would outlive a worker that is killed. This one is
    # held until the process ends, and removed after what they remove themselves.
    folder, _ = own_folder("loramend-worker-")
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=_LAST)
    tempfile.tempdir = str(folder)

    from worker.app import create_app

    app = create_app(settings, queues)
    worker = app.Worker(
        hostname=f"{'-'.join(queues)}-{os.getpid()}@%h",
        queues=list(queues),
        pool="prefork",
        concurrency=1,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    logging.getLogger("worker").info("stopped")
    return int(worker.exitcode or 0)


def _sign_key_problem(settings: WorkerSettings) -> str | None:
    """Why this worker could not sign, if it is to."""
    if settings.sign_key is None:
        return None
    if not is_installed():
        return "signing needs loramend[sign], which is not installed here"
    try:
        check_private_key(settings.sign_key)
    except SigningError as error:
        return error.detail
    return None


def _queues(text: str) -> tuple[Queue, ...]:
    chosen = tuple(name for name in QUEUES if name in text.split(","))
    unknown = set(text.split(",")) - set(QUEUES)
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(f"no such queues: {', '.join(sorted(unknown))}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
