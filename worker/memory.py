"""How much memory a process uses, and whether the kernel has killed for want of it."""

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Memory that the process alone accounts for: pages of files, which the kernel can drop, do not count. 0
    where the kernel does not say."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssShmem"):
                total += int(value.split()[0]) * 1024
    except OSError:
        return 0
    return total


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory: in this one's control group where that can
    be read, else on the machine."""
    for path, name in _counters():
        try:
            for line in path.read_text(encoding="ascii").splitlines():
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
        except OSError:
            continue
    return 0


def _counters() -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        groups = []
    for line in groups:
        _, controllers, group = line.split(":", 2)
        group = group.lstrip("/")
        if controllers == "memory":
            root = Path("/sys/fs/cgroup/memory")
            # In a container the group's name may be the host's, with the group itself mounted at the root.
            found += [
                (root / group / "memory.oom_control", "oom_kill"),
                (root / "memory.oom_control", "oom_kill"),
            ]
        elif not controllers:
            root = Path("/sys/fs/cgroup")
            found += [(root / group / "memory.events", "oom_kill"), (root / "memory.events", "oom_kill")]
    return [*found, (Path("/proc/vmstat"), "oom_kill")]
