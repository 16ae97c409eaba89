"""Files too large to hold, sent as they are made: how fast they are taken in, and what that costs the API in
memory."""

import asyncio
import hashlib
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

PUT, FORM = "PUT /uploads/{sha256}", "POST /repair, multipart"
_CHUNK = 1 << 20
_TIMEOUT = 300.0
_BOUNDARY = "a-boundary-of-the-load-benchmark"
_RANK, _SIDE = 16, 4096
_PING_SECONDS = 0.05


@dataclass(frozen=True)
class Upload:
    """How one upload went. Memory in bytes: resident before, and the most of it until the answer. `pings` is
    how long each GET /healthz took meanwhile."""

    call: str
    size: int
    status: int
    seconds: float
    before: int
    peak: int
    pings: tuple[float, ...]

    @property
    def growth(self) -> int:
        return self.peak - self.before


def modules_for(size: int) -> int:
    """How many modules of zeros make an adapter of about that many bytes."""
    return max(1, size // (2 * _RANK * _SIDE * 4))


def adapter_config() -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "org/base",
        "r": _RANK,
        "lora_alpha": _RANK,
        "target_modules": ["q_proj"],
    }


def adapter_chunks(modules: int) -> Iterator[bytes]:
    """adapter_model.safetensors of that many modules, a piece at a time."""
    one = _RANK * _SIDE * 4
    header: dict[str, Any] = {}
    for number in range(modules):
        for side, shape in (("A", [_RANK, _SIDE]), ("B", [_SIDE, _RANK])):
            begin = len(header) * one
            header[f"base_model.model.model.layers.{number}.self_attn.q_proj.lora_{side}.weight"] = {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [begin, begin + one],
            }
    text = json.dumps(header).encode()
    yield struct.pack("<Q", len(text)) + text
    zeros, left = bytes(_CHUNK), len(header) * one
    while left > 0:
        yield zeros[: min(left, _CHUNK)]
        left -= _CHUNK


def form_chunks(modules: int) -> Iterator[bytes]:
    """The same adapter in a form, with its config and a request."""
    request = {"steps": [{"type": "shrink", "factor": 0.5}]}
    for name, document in (("request", request), ("config", adapter_config())):
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        yield head.encode() + json.dumps(document).encode() + b"\r\n"
    disposition = 'Content-Disposition: form-data; name="adapter"; filename="adapter_model.safetensors"'
    yield f"--{_BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
    yield from adapter_chunks(modules)
    yield f"\r\n--{_BOUNDARY}--\r\n".encode()


def send(url: str, call: str, size: int, api: psutil.Process) -> Upload:
    """Send an adapter of about `size` bytes by that call, and watch the API process."""
    modules = modules_for(size)
    if call == PUT:
        digest, length = _measured(adapter_chunks(modules))
        target, headers = f"/uploads/{digest}", {"Content-Type": "application/octet-stream"}
        chunks = adapter_chunks
    else:
        _, length = _measured(form_chunks(modules))
        target, headers = "/repair", {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        chunks = form_chunks
    headers["Content-Length"] = str(length)
    peak = _reset_peak(api)
    before = api.memory_info().rss
    start = time.perf_counter()
    status, job, pings = asyncio.run(_send(url, call.partition(" ")[0], target, headers, chunks(modules)))
    seconds = time.perf_counter() - start
    if job:
        httpx.delete(f"{url}/jobs/{job}", timeout=_TIMEOUT).raise_for_status()
    return Upload(call, length, status, seconds, before, peak(), tuple(pings))


async def _send(
    url: str, method: str, target: str, headers: dict[str, str], chunks: Iterator[bytes]
) -> tuple[int, str | None, list[float]]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    pings: list[float] = []
    async with (
        httpx.AsyncClient(base_url=url, timeout=_TIMEOUT) as http,
        httpx.AsyncClient(base_url=url, timeout=_TIMEOUT) as other,
    ):
        pinging = asyncio.create_task(_ping(other, pings))
        answer = await http.request(method, target, headers=headers, content=body())
        pinging.cancel()
    return answer.status_code, answer.json().get("id"), pings


async def _ping(http: httpx.AsyncClient, pings: list[float]) -> None:
    while True:
        start = time.perf_counter()
        (await http.get("/healthz")).raise_for_status()
        pings.append(time.perf_counter() - start)
        await asyncio.sleep(_PING_SECONDS)


def _measured(chunks: Iterator[bytes]) -> tuple[str, int]:
    """(sha256, length)."""
    digest, length = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        length += len(chunk)
    return digest.hexdigest(), length


def _reset_peak(process: psutil.Process) -> Callable[[], int]:
    """Have the kernel forget the process's peak; returns what reads it later, in bytes."""
    folder = Path(f"/proc/{process.pid}")
    (folder / "clear_refs").write_text("5")

    def peak() -> int:
        status = (folder / "status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    return peak
