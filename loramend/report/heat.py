"""A number for each module as a map of layers and kinds of module."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_LAYER = re.compile(r"(?P<before>.*?)(?P<layer>\d+)\.(?P<kind>.+)")


class Place(NamedTuple):
    """A module's row and column."""

    layer: str
    kind: str


_SHADES = 7


class HeatMap(NamedTuple):
    """kinds: the columns; layers: the rows; shades: SVG path data of each shade's cells, the darkest last, in
    units of a cell; words: the map for those who cannot see it."""

    kinds: list[str]
    layers: list[str]
    shades: list[str]
    words: str


def place(name: str) -> Place | None:
    """Where a module lies, by the first number in its name; None without one."""
    found = _LAYER.fullmatch(name)
    return Place(f"{found['before']}{found['layer']}", found["kind"]) if found else None


def heat_map(values: Mapping[str, float | None]) -> HeatMap | None:
    """A cell a module, darkest where the value is largest; None where fewer than two layers tell their number
    in the module's name."""
    placed = {name: found for name in values if (found := place(name))}
    layers = list(dict.fromkeys(found.layer for found in placed.values()))
    kinds = list(dict.fromkeys(found.kind for found in placed.values()))
    if len(layers) < 2:
        return None
    known = {name: value for name in placed if (value := values[name]) is not None}
    low, high = min(known.values(), default=0.0), max(known.values(), default=0.0)
    shades = [""] * _SHADES
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (layers, kinds))
    for name, value in known.items():
        dark = max(0.0, value / high) if high > 0 else 0.0
        layer, kind = placed[name]
        shades[min(int(dark * _SHADES), _SHADES - 1)] += f"M{columns[kind]} {rows[layer]}h1v1h-1z"
    words = f"{len(layers)} layers by {len(kinds)} kinds of module, from {low:.3g} to {high:.3g}"
    return HeatMap(kinds, layers, shades, words)
