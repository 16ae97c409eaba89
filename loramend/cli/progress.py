"""Progress on stderr, with time left; nothing where stderr is no terminal."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from loramend.cli.errors import printable
from loramend.contracts.job import Phase
from loramend.contracts.job import Progress as Step

_WORDS: dict[Phase, str] = {
    "fetch": "Fetching",
    "measure": "Measuring",
    "repair": "Repairing",
    "train": "Training",
    "evaluate": "Evaluating",
    "controls": "Placebo controls",
    "write": "Writing",
    "publish": "Publishing",
}


def phase_words(phase: Phase) -> str:
    """What a phase is called."""
    return _WORDS[phase]


_VALUES = {"omega": "Ω", "samples_per_second": "samples/s"}


class _Amount(ProgressColumn):
    """Bytes as sizes, everything else as counts."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes, self._count = DownloadColumn(), MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        return (self._bytes if task.fields.get("unit") == "bytes" else self._count).render(task)


@contextmanager
def progress_on_stderr(words: Mapping[Phase, str] | None = None) -> Iterator[Callable[[Step], None]]:
    """A callback that shows each phase as one line with its bar; the lines go when the block ends.

    words  what a phase is called, where that is not what it usually is
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[Phase, TaskID] = {}
        names = {**_WORDS, **(words or {})}

        def show(step: Step) -> None:
            if step.phase not in tasks:
                tasks[step.phase] = bars.add_task(
                    names[step.phase], total=step.total, detail="", unit=step.unit
                )
            bars.update(
                tasks[step.phase],
                completed=step.done,
                total=step.total or None,
                detail=_detail(step),
                unit=step.unit,
            )

        yield show


def _detail(step: Step) -> str:
    """What is being worked on, or while training its numbers."""
    if not step.values:
        return printable(step.detail)[-60:]
    return "  ".join(f"{_VALUES.get(name, name)} {value:.3g}" for name, value in step.values.items())
