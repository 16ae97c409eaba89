"""Device, memory and disk."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loramend.cli.checks.result import Finding, GiB, size
from loramend.cli.errors import CommandError
from loramend.evaluation.words import counted

_LITTLE_MEMORY = 2 * GiB  # a small model and torch itself
_LITTLE_DISK = 5 * GiB  # the weights of a model of two billion parameters
_CGROUP = Path("/sys/fs/cgroup")


def device(asked: str | None) -> Iterator[Finding]:
    """Where numbers are computed, and whether training in mixed precision gains anything there."""
    try:
        import torch

        from loramend.cli.work import choose_device
        from loramend.report.provenance import describe_device
        from loramend.training.host import fast_bfloat16
    except ImportError:
        yield Finding(
            name="device", state="fix", found="torch is missing", remedy="pip install 'loramend[repair]'"
        )
        return
    try:
        chosen = torch.device(choose_device(asked))
    except CommandError as error:
        yield Finding(
            name="device", state="fix", found=str(error), remedy="name another --device: cpu, cuda, cuda:1, …"
        )
        return
    found = describe_device(chosen)
    if chosen.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen)
        found += f", {size(free)} of {size(total)} free"
    else:
        found += f", {counted(_cores(), 'core')}, {counted(torch.get_num_threads(), 'thread')}"
    if asked is None and chosen.type == "cpu":
        built = "torch is built without CUDA" if torch.version.cuda is None else "no GPU is seen"
        yield Finding(
            name="device",
            state="note",
            found=f"{found}; {built}",
            remedy="enough for weights alone; to train large models, a GPU and a torch built for it",
        )
    else:
        yield Finding(name="device", state="ok", found=found)
    if fast_bfloat16(chosen):
        yield Finding(
            name="mixed precision", state="ok", found="bfloat16 is faster here and is used to train"
        )
    else:
        cpu = "AMX, or AVX512-BF16 in a CPU made without AMX,"
        why = "a GPU of compute capability 8.0" if chosen.type == "cuda" else f"{cpu} or a GPU"
        yield Finding(
            name="mixed precision", state="note", found=f"not used: float32 is faster without {why}"
        )


def memory() -> Iterator[Finding]:
    """What this process may still take: the machine's memory, or its container's limit."""
    told = _meminfo()
    if told is None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield Finding(name="memory", state="ok", found=f"{size(total)} in all")
        return
    total, free = told
    limit = _cgroup_limit()
    where = ""
    if limit is not None and limit[0] < total:
        total, free, where = limit[0], min(free, limit[0] - limit[1]), ", by this container's limit"
    found = f"{size(free)} of {size(total)} free{where}"
    little = free < _LITTLE_MEMORY
    remedy = "end other programs, or give the container more; smaller models and rora's batch=… need less"
    yield Finding(
        name="memory", state="note" if little else "ok", found=found, remedy=remedy if little else ""
    )


def disk(folders: dict[str, Path]) -> Iterator[Finding]:
    """Each folder that is written to, by the option or variable that moves it."""
    for option, folder in folders.items():
        folder = folder.expanduser().absolute()
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        name = f"disk, {option}"
        if not there.is_dir() or not _writable(there):
            yield Finding(
                name=name,
                state="fix",
                found=f"{folder} cannot be written",
                remedy=f"give another folder with {option}, or its rights to this user",
            )
            continue
        free = shutil.disk_usage(there).free
        little = free < _LITTLE_DISK
        yield Finding(
            name=name,
            state="note" if little else "ok",
            found=f"{folder}: {size(free)} free",
            remedy=f"make room, or name a folder on another disk with {option}" if little else "",
        )


def _writable(folder: Path) -> bool:
    """By writing: access rights alone do not tell of a read-only or full disk."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"loramend")
            file.flush()
    except OSError:
        return False
    return True


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _meminfo() -> tuple[int, int] | None:
    """(total, available) in bytes; None where the system has no /proc."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        told = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return told["MemTotal"], told["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _cgroup_limit() -> tuple[int, int] | None:
    """(limit, used) of the control group that this process sees as its root; None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return int((_CGROUP / limit).read_text()), int((_CGROUP / used).read_text())
        except (OSError, ValueError):
            continue
    return None
