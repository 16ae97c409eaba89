"""The jobs that are sent: weight-only steps on small random adapters; `trained` has the one that trains."""

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.faults.adapters import make_adapter, packed
from benchmarks.faults.client import Work
from benchmarks.faults.outside import SILENT, USER

_SEEDS = 3


@dataclass(frozen=True)
class Works:
    """Jobs by how long they take on one core.

    short    a tenth of a second
    medium   one to two seconds, in several kinds
    long     twenty seconds
    dull     a minute, in modules that take seconds each
    greedy   the same with two GB of memory
    fetched  of a repository of the Hub that does not answer
    token    the Hub's, for those that publish
    """

    short: tuple[Work, ...]
    medium: tuple[Work, ...]
    long: Work
    dull: Work
    greedy: Work
    fetched: Work
    token: str

    def publishing(self, count: int) -> list[Work]:
        """That many short ones which publish, each to a repository of its own."""
        work = self.short[0]
        return [replace(work, request=work.request | self._publish(index)) for index in range(count)]

    def _publish(self, index: int) -> dict[str, object]:
        return {"publish": {"repo_id": f"{USER}/repaired-{index}"}, "hub_token": self.token}

    def of(self, kinds: tuple[Work, ...], count: int) -> list[Work]:
        """That many, of each kind in turn."""
        return [kinds[index % len(kinds)] for index in range(count)]


def make_works(folder: Path, token: str) -> Works:
    """Make the adapters in that folder."""
    small = packed(make_adapter(folder / "small", modules=8))
    middle = packed(make_adapter(folder / "middle", modules=60, size=512))
    many = packed(make_adapter(folder / "many", modules=500, size=512))
    big = packed(make_adapter(folder / "big", modules=1, size=16384))
    huge = packed(make_adapter(folder / "huge", modules=1, size=65536))
    return Works(
        short=tuple(Work(f"short-{seed}", small, _request(4, 2, seed)) for seed in range(_SEEDS)),
        medium=tuple(Work(f"medium-{seed}", middle, _request(128, 5, seed)) for seed in range(_SEEDS)),
        long=Work("long", many, _request(128, 8, 0)),
        greedy=Work("greedy", huge, _request(1024, 16, 0)),
        dull=Work("dull", big, _request(1024, 16, 0)),
        fetched=Work("fetched", b"", {"source": {"hub_id": SILENT}, "steps": _steps(4, 1)}),
        token=token,
    )


def _request(k: int, times: int, seed: int) -> dict[str, object]:
    return {"steps": _steps(k, times), "seed": seed}


def _steps(k: int, times: int) -> list[dict[str, object]]:
    return [{"type": "random_subspace", "k": k, "form": "direction"}] * times
