"""What the command line works on, once it is on this machine."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A folder with the files, or a .safetensors file; the name to report it under; where it came from."""

    folder: Path
    name: str
    source: dict[str, str] = field(default_factory=dict)
