"""Where a report comes from: versions, device, time and peak memory."""

import resource
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata

import torch

from loramend.contracts.report import Provenance

_PACKAGES = ("torch", "safetensors", "numpy")


class Stopwatch:
    """Notes when a piece of work began; `provenance` closes it."""

    def __init__(self) -> None:
        self._started_at = datetime.now(UTC)
        self._start = time.perf_counter()

    def provenance(self, *, device: torch.device, seed: int, source: Mapping[str, str]) -> Provenance:
        """Versions, device, seed, seconds since the start and the process's peak resident memory in bytes."""
        return Provenance(
            loramend=metadata.version("loramend"),
            versions={
                "python": sys.version.split()[0],
                **{name: metadata.version(name) for name in _PACKAGES},
            },
            device=describe_device(device),
            seed=seed,
            started_at=self._started_at,
            seconds=round(time.perf_counter() - self._start, 3),
            peak_memory_bytes=peak_memory_bytes(),
            source=dict(source),
        )


def describe_device(device: torch.device) -> str:
    """`cpu`, or the accelerator's name."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
