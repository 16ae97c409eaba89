"""What the service bears: many clients at once, and files larger than it may hold in memory.

    python -m benchmarks.load                        200 clients for a minute, 2 GB by each way in: 5 minutes
    python -m benchmarks.load --quick                40 clients, 200 MB: half a minute
    python -m benchmarks.load --document docs/11-load.md

Starts `loramend serve` (broker, workers, API) on loopback, in a folder that is removed afterwards and takes
some 12 GB at most. The clients are one process of asynchronous ones: each submits an adapter, asks for its
job about once a second until it has ended, and begins again; first without API keys, then with a few that
they share, which runs into the keys' rates. Uploads are adapters of zeros, made while they are sent.

Exit code 1 where an answer was neither what was asked for nor a 429 or 503 with Retry-After, where a job
failed, or where an upload cost more than a fixed amount of memory.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from benchmarks.backdoors.tables import write
from benchmarks.load import tables
from benchmarks.load.clients import Told
from benchmarks.load.serving import Service, serving
from benchmarks.load.uploads import FORM, PUT, Upload, adapter_config, send

MEMORY_LIMIT = 64 << 20  # bytes that an upload of any size may add
_CLIENTS_A_KEY = 20


def small_adapter() -> bytes:
    """A tiny adapter as .tar.gz."""
    A, B = np.ones((16, 32), np.float32), np.ones((32, 16), np.float32)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = save({f"{module}.lora_A.weight": A, f"{module}.lora_B.weight": B})
    config = json.dumps(adapter_config()).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in (("adapter_config.json", config), ("adapter_model.safetensors", weights)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def crowd(service: Service, adapter: Path, clients: int, seconds: float, keys: list[str]) -> Told:
    """What the clients saw, in a process of theirs."""
    command = [sys.executable, "-m", "benchmarks.load.clients", service.url, str(adapter)]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    for key in keys:
        command += ["--key", key]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 300)
    return Told.model_validate_json(done.stdout)


def faults(runs: dict[str, Told], sent: list[Upload]) -> list[str]:
    """Everything that must not be, a line each."""
    found = []
    for name, told in runs.items():
        found += [f"{name}: {what}" for what in told.wrong]
        found += [f"{name}: {count} jobs {how}" for how, count in told.ended.items() if how == "failed"]
    for upload in sent:
        if upload.status not in (201, 202):
            found.append(f"{upload.call} of {upload.size} bytes was answered {upload.status}")
        if upload.growth > MEMORY_LIMIT:
            found.append(f"{upload.call} of {upload.size} bytes cost {upload.growth} bytes of memory")
    return found


def measure(given: argparse.Namespace, work: Path) -> tuple[dict[str, Told], list[Upload]]:
    """The clients' runs by name, and the uploads."""
    adapter = work / "adapter.tar.gz"
    adapter.write_bytes(small_adapter())
    # So that a short run meets the keys' rates, too.
    quick = {"LORAMEND_KEY_REQUESTS_BURST": "10", "LORAMEND_KEY_REQUESTS_PER_MINUTE": "300"}
    env = quick if given.quick else {}
    with serving(work / "data", LORAMEND_LOG_LEVEL="warning", **env) as service:
        sent = [send(service.url, call, size, service.api) for size in given.bytes for call in (PUT, FORM)]
        keys = service.make_keys(max(1, given.clients // _CLIENTS_A_KEY))
        runs = {
            f"{given.clients}, no keys": crowd(service, adapter, given.clients, given.seconds, []),
            f"{given.clients}, {len(keys)} keys": crowd(service, adapter, given.clients, given.seconds, keys),
        }
    return runs, sent


def page(runs: dict[str, Told], sent: list[Upload], load: float) -> str:
    """The measured part of the document."""
    told = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores that carried service, workers, "
        f"broker and clients; the machine's load before was {load:.1f}."
    )
    return "\n\n".join((told, tables.calls(runs), tables.jobs(runs), tables.uploads(sent)))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, help="how many at once: 200")
    parser.add_argument("--seconds", type=float, help="how long they work, twice: 60")
    parser.add_argument(
        "--bytes", type=int, action="append", help="of an upload: 200 million, then 2 billion"
    )
    parser.add_argument("--quick", action="store_true", help="40 clients, 5 seconds, 200 million bytes")
    parser.add_argument("--document", type=Path, help="put the tables into this file, between its markers")
    parser.add_argument("--work", type=Path, help="where to make the service's folder")
    given = parser.parse_args()
    given.clients = given.clients or (40 if given.quick else 200)
    given.seconds = given.seconds or (5 if given.quick else 60)
    given.bytes = given.bytes or ([200_000_000] if given.quick else [200_000_000, 2_000_000_000])
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="load-", dir=given.work) as folder:
        runs, sent = measure(given, Path(folder))
    text = page(runs, sent, load)
    print(text)
    found = faults(runs, sent)
    for line in found:
        print(f"FAULT {line}", file=sys.stderr)
    if given.document:
        write(given.document, text)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
