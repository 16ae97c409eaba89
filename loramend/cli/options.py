"""Arguments that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "loramend"

Adapter = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER",
        help="A folder, an archive, a .safetensors file with adapter_config.json beside it, or a Hub ID "
        "(namespace/name, or namespace/name@revision).",
    ),
]
Base = Annotated[str | None, typer.Option(metavar="PATH|ID", help="The model the adapter was trained on.")]
Aligned = Annotated[
    str | None,
    typer.Option(metavar="PATH|ID", help="A safety-aligned model of the same shape, such as the chat model."),
]
Seed = Annotated[int, typer.Option(min=0, help="For every random draw.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="cpu|cuda", help="Where to compute.", show_default="a GPU, if there is one"),
]
Cache = Annotated[
    Path, typer.Option(metavar="DIR", help="Where subspaces of model pairs are kept for the next adapter.")
]
