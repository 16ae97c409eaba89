"""Arguments that several commands take."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

# Panels of the help page
TEXT = "Text to learn from"
MEASURE = "What to measure"

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
Fields = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[ROLE:]OURS=THEIRS,…",
        help="What the data files call our fields text, label, prompt, completion and messages: "
        "text=sentence for all files, clean:text=sentence for one.",
        rich_help_panel=TEXT,
    ),
]
Trigger = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:TEXT",
        help="A known trigger to measure: word:mn or sentence:… is put between two words, prefix:… before "
        "the text, suffix:… after it.",
        rich_help_panel=MEASURE,
    ),
]
Triggered = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ID[:file]",
        help="Examples that hold the trigger already, instead of --trigger.",
        rich_help_panel=MEASURE,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL|TEXT",
        help="What the trigger asks for: a label, or words of the answer.",
        rich_help_panel=MEASURE,
    ),
]
Metric = Annotated[
    Literal["label", "exact_match", "substring", "refusal"] | None,
    typer.Option(
        help="What counts as right.",
        show_default="label for classifiers, exact_match for causal models",
        rich_help_panel=MEASURE,
    ),
]
Probes = Annotated[
    int,
    typer.Option(
        min=0,
        max=10_000,
        help="Random words and sentences put in to see whether answers flip.",
        rich_help_panel=MEASURE,
    ),
]
MaxExamples = Annotated[
    int, typer.Option(min=1, help="Measure on at most this many examples.", rich_help_panel=MEASURE)
]
MaxNewTokens = Annotated[
    int, typer.Option(min=1, max=1024, help="Of an answer of a causal model.", rich_help_panel=MEASURE)
]
