"""What clients get to see."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx2


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The answer's problem, having checked status, code and request ID."""
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["status"], found["code"]) == (status, status, code), found
    assert found["request_id"] == answer.headers["x-request-id"]
    return found


def run_client(url: str, code: str, home: Path, **env: str) -> Any:
    """Run code in a process of its own that knows this service as the Hub; it prints a JSON document."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given = {"HF_ENDPOINT": url, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | env
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=clean | given, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])
