"""The load benchmark in its short form against the real service, and what it calls dishonest."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.load.__main__ import faults
from benchmarks.load.clients import CANCEL, POST, Told, run
from benchmarks.load.tables import percentiles
from benchmarks.load.uploads import FORM, PUT, Upload

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


def test_forty_clients_and_uploads_in_constant_memory(tmp_path: Path) -> None:
    document = tmp_path / "load.md"
    document.write_text("Above.\n<!-- results: begin -->\nold\n<!-- results: end -->\nBelow.\n")
    command = [sys.executable, "-m", "benchmarks.load", "--quick", "--document", str(document)]
    done = subprocess.run(
        [*command, "--work", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for run_of in ("40, no keys", "40, 2 keys"):
        assert re.search(rf"\| {run_of} \| `POST /repair` \| 202: \d+", done.stdout)
        assert re.search(rf"\| {run_of} \| `GET /jobs/{{id}}` \| 200: \d+", done.stdout)
    for call in (PUT, FORM):
        row = re.search(rf"\| `{re.escape(call)}` \| 199,\d\d\d,\d\d\d \| 20[12] \|(.*)", done.stdout)
        assert row is not None
    said = document.read_text()
    assert "old" not in said
    assert done.stdout.strip() in said
    assert [path.name for path in tmp_path.iterdir()] == ["load.md"], "nothing of the service stays"


class _Dishonest(BaseHTTPRequestHandler):
    """Answers 503 without saying when to ask again, then breaks off, then 500."""

    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        _Dishonest.asked += 1
        if _Dishonest.asked == 2:
            self.close_connection = True
            return
        self.send_response(503 if _Dishonest.asked == 1 else 500)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dishonest() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dishonest)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_is_no_honest_answer_is_counted(dishonest: str) -> None:
    told = asyncio.run(run(dishonest, b"adapter", clients=1, seconds=3.5, keys=[]))
    assert told.wrong_count >= 3
    assert "503, Retry-After ''" in told.wrong[0]
    assert "RemoteProtocolError" in told.wrong[1]
    assert told.wrong[2].startswith(f"{POST}: 500")
    assert set(told.calls[POST].statuses) == {503, 500}
    assert CANCEL not in told.calls


def test_faults() -> None:
    fine = Upload(PUT, 10, 201, 1.0, before=100, peak=200, pings=())
    grown = Upload(FORM, 10, 202, 1.0, before=100, peak=100 + (65 << 20), pings=())
    refused = Upload(PUT, 10, 413, 1.0, before=100, peak=200, pings=())
    assert faults({"1": Told(ended={"succeeded": 3})}, [fine]) == []
    found = faults({"1": Told(ended={"failed": 2}, wrong=["GET: 500"])}, [fine, grown, refused])
    assert [line.partition(" ")[0] for line in found] == ["1:", "1:", "POST", "PUT"]


def test_percentiles() -> None:
    assert percentiles([]) == (0, 0, 0, 0)
    assert percentiles([2.0]) == (2, 2, 2, 2)
    assert percentiles([float(number) for number in range(101)]) == (50, 95, 99, 100)
