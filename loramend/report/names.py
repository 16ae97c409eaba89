"""Names of modules, without what all of them begin with."""

from collections.abc import Sequence
from typing import NamedTuple


class Shortened(NamedTuple):
    """What all names begin with, its dot included ("" for nothing), and the rest of each, in their order."""

    shared: str
    rest: list[str]


def shortened(names: Sequence[str]) -> Shortened:
    """By whole parts between dots; at least one part of each name stays."""
    split = [name.split(".") for name in names]
    most = min((len(parts) for parts in split), default=1) - 1
    same = 0
    while same < most and len({parts[same] for parts in split}) == 1:
        same += 1
    shared = "".join(f"{part}." for part in split[0][:same]) if split else ""
    return Shortened(shared, [name.removeprefix(shared) for name in names])
