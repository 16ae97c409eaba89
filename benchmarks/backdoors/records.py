"""The file beside a document that its tables are made from: one filled cell a line.

Committed with the document, it lets a later run fill in what is missing without doing the rest again.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def kept(path: Path) -> Mapping[str, dict[str, Any]]:
    """What the file holds, by the cell's key; nothing where there is none."""
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


@cache
def _read(path: Path, _changed: int) -> Mapping[str, dict[str, Any]]:
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {line["key"]: line["record"] for line in lines}


def keep(path: Path, records: Mapping[str, dict[str, Any]]) -> None:
    """Add to the file what it does not hold; its lines are in the order of the cells' names."""
    merged = {**records, **kept(path)}
    lines = sorted((record["node"], key, record) for key, record in merged.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps({"key": key, "record": record}) + "\n" for _, key, record in lines)
    path.write_text(text, encoding="utf-8")
