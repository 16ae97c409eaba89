"""A number for each module as a map of layers and kinds of module."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_LAYER = re.compile(r"(?P<before>.*?)(?P<layer>\d+)\.(?P<kind>.+)")


class Cell(NamedTuple):
    """x and y in the map's own units, how dark it is from 0 to 1, and what it shows in words."""

    x: int
    y: int
    shade: float
    words: str


class HeatMap(NamedTuple):
    """kinds: the columns; layers: the rows; words: the map for those who cannot see it."""

    kinds: list[str]
    layers: list[str]
    cells: list[Cell]
    words: str


def heat_map(values: Mapping[str, float | None]) -> HeatMap | None:
    """A cell a module, darker the further its value lies below 1; None where fewer than two layers tell
    their number in the module's name."""
    placed = {name: found for name in values if (found := _LAYER.fullmatch(name))}
    layers = list(dict.fromkeys(f"{found['before']}{found['layer']}" for found in placed.values()))
    kinds = list(dict.fromkeys(found["kind"] for found in placed.values()))
    if len(layers) < 2:
        return None
    cells = []
    for name, found in placed.items():
        value = values[name]
        if value is None:
            continue
        x, y = kinds.index(found["kind"]), layers.index(f"{found['before']}{found['layer']}")
        cells.append(Cell(x, y, round(min(1.0, max(0.0, 1.0 - value)), 3), f"{name}: {value:.3f}"))
    known = [value for name, value in values.items() if name in placed and value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    words = f"{len(layers)} layers by {len(kinds)} kinds of module, from {low:.3f} to {high:.3f}"
    return HeatMap(kinds, layers, cells, words)
