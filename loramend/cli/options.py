"""Arguments that several commands take."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

# Panels of the help page
SERVER = "The server"
TEXT = "Text to learn from"
MEASURE = "What to measure"

DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "loramend"


def step_names(incomplete: str) -> list[str]:
    """Steps that a shell offers for what is typed so far."""
    from loramend.contracts.steps import STEP_MODELS

    return [name for name in STEP_MODELS if name.startswith(incomplete)]


Adapter = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER",
        help="A folder, an archive, a .safetensors file with adapter_config.json beside it, or a Hub ID "
        "(namespace/name, or namespace/name@revision).",
    ),
]
Threat = Annotated[Literal["poisoned_adapter", "poisoned_base"], typer.Option(help="What is not trusted.")]
Step = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE[:key=value,…]",
        help="A step to take; repeat it for several, in order. Without any, the default for the threat.",
        autocompletion=step_names,
    ),
]
Base = Annotated[str | None, typer.Option(metavar="PATH|ID", help="The model the adapter was trained on.")]
Aligned = Annotated[
    str | None,
    typer.Option(metavar="PATH|ID", help="A safety-aligned model of the same shape, such as the chat model."),
]
ServerModel = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|ID", help="As for repair, but found by the server: a path under its model roots."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="For every random draw.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="cpu|cuda", help="Where to compute.", show_default="a GPU, if there is one"),
]
Cache = Annotated[
    Path, typer.Option(metavar="DIR", help="Where subspaces of model pairs are kept for the next adapter.")
]
Bank = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A bank of adapters, of `loramend bank build`, to set this one beside as it came.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the report here too: as a page where FILE ends in .html, as SARIF in .sarif, otherwise "
        "as JSON.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print each event as a line of JSON, and nothing else.")
]
DEFAULT_SERVER = "http://127.0.0.1:8000"
Server = Annotated[
    str,
    typer.Option(
        envvar="LORAMEND_SERVER",
        metavar="URL",
        help="A loramend server, if the job is not given by its URL.",
        rich_help_panel=SERVER,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        "--api-key",
        envvar=["LORAMEND_KEY", "LORAMEND_API_KEY"],
        metavar="KEY",
        help="Its API key, sent as a bearer token.",
        rich_help_panel=SERVER,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        envvar="LORAMEND_DATA",
        metavar="DIR",
        help="The service's folder of jobs, files and logs.",
        show_default="$XDG_DATA_HOME/loramend",
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB_OR_URL", help="A job's ID, or its URL.")]
Clean = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ID[:file]",
        help="Clean examples of the adapter's task with their answers, one JSON object a line: text and "
        "label, prompt and completion, or chat messages. A file, or a dataset on the Hub.",
        rich_help_panel=TEXT,
    ),
]
Unlabelled = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ID[:file]",
        help="Clean text of the same kind; answers are not read.",
        rich_help_panel=TEXT,
    ),
]
Validation = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ID[:file]",
        help="Clean examples to judge the repair's strength by, instead of a share of --clean.",
        rich_help_panel=TEXT,
    ),
]
ValidationShare = Annotated[
    float,
    typer.Option(min=0.01, max=0.9, help="That share, held out of training.", rich_help_panel=TEXT),
]
Evaluate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ID[:file]",
        help="Labelled examples to measure on before and after; none is learned.",
        rich_help_panel=MEASURE,
    ),
]
Controls = Annotated[
    bool,
    typer.Option(
        help="Measure a fresh, a continued and a shrunken adapter beside the repair.",
        rich_help_panel=MEASURE,
    ),
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
