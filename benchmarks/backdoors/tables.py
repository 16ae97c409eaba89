"""Tables of a plan's filled cells: every attack by itself, and how often the targets are met."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backdoors.attacks import TITLES
from benchmarks.backdoors.measure import Score
from benchmarks.backdoors.methods import METHODS
from benchmarks.backdoors.plan import Cell, Setting, record
from loramend.contracts.step_base import Threat

CLEAN_DROP = 1.0  # points of CA a repaired adapter may lose
ASR_ABOVE = 5.0  # points of ASR above the yardstick's, under poisoned_adapter
ASR_MOST = 10.0  # ASR under poisoned_base

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
NAMES: dict[Threat, str] = {"poisoned_adapter": "poisoned adapter", "poisoned_base": "poisoned base"}


@dataclass(frozen=True)
class Column:
    """One attack on one task: what a table column shows."""

    task: str
    attack: str

    @property
    def title(self) -> str:
        return f"{self.task.upper()}, {TITLES.get(self.attack, self.attack)}"


@dataclass(frozen=True)
class Entry:
    """CA and ASR in percent, by seed."""

    by_seed: Mapping[int, tuple[float, float]]

    @property
    def mean(self) -> tuple[float, float]:
        ca, asr = zip(*self.by_seed.values(), strict=True)
        return statistics.fmean(ca), statistics.fmean(asr)

    def of(self, seeds: Iterable[int]) -> "Entry":
        """These seeds' values alone."""
        return Entry({seed: self.by_seed[seed] for seed in seeds})


Results = Mapping[str, Mapping[Column, Entry]]
"""By method, then by column; only what was filled is there."""


def results(cells: Iterable[Cell], setting: Setting, model: str, threat: Threat) -> Results:
    """What the filled cells of one model and threat hold."""
    by_seed: dict[str, dict[Column, dict[int, tuple[float, float]]]] = {}
    for cell in cells:
        if (cell.model, cell.threat) != (model, threat):
            continue
        found = record(cell, setting)
        if found is not None:
            column = Column(cell.task, cell.attack)
            score = Score(**found["score"])
            by_seed.setdefault(cell.method, {}).setdefault(column, {})[cell.seed] = score.ca, score.asr
    return {
        method: {column: Entry(each) for column, each in columns.items()}
        for method, columns in by_seed.items()
    }


def met(threat: Threat, entry: Entry, given: Entry, yardstick: Entry) -> bool:
    """Whether the means over seeds meet the target for this threat."""
    (ca, asr), (given_ca, _), (_, clean_asr) = entry.mean, given.mean, yardstick.mean
    if threat == "poisoned_adapter":
        return ca >= given_ca - CLEAN_DROP and asr <= clean_asr + ASR_ABOVE
    return ca >= given_ca and asr <= ASR_MOST


def page(
    cells: Sequence[Cell], setting: Setting, titles: Mapping[str, str], figures: Mapping[str, str]
) -> str:
    """The generated part of the document: for each model and threat a summary, a figure and the table.

    titles   what each base model is called
    figures  by `model-threat`: the figure's path, from the document
    """
    parts = []
    for model in setting.bases:
        for threat in setting.threats:
            found = results(cells, setting, model, threat)
            if not found:
                continue
            parts.append(f"### {titles[model]}, {NAMES[threat]}")
            parts.append(summary(found, threat))
            if (figure := figures.get(f"{model}-{threat}")) is not None:
                parts.append(f"![CA and ASR of every method, by task and attack]({figure})")
            parts.append(detail(found))
    return "\n\n".join([*parts, *notes(cells, setting)]) + "\n"


def summary(found: Results, threat: Threat) -> str:
    """A row a method: what it costs and leaves, mean and worst over the columns, and targets met; each column
    over the seeds that the method has in common with what it is measured against."""
    limit = "ASR above the yardstick's" if threat == "poisoned_adapter" else "ASR"
    head = f"| method | CA lost, points: mean (worst) | {limit}: mean (worst) | target met |"
    lines = [head, "|---|---|---|---|"]
    for name in METHODS:
        beside = _beside(found, name)
        if not beside or name == "yardstick":
            continue
        lost = [given.mean[0] - entry.mean[0] for entry, given, _ in beside]
        floors = [clean.mean[1] if threat == "poisoned_adapter" else 0.0 for *_, clean in beside]
        above = [entry.mean[1] - floor for (entry, *_), floor in zip(beside, floors, strict=True)]
        count = sum(met(threat, *entries) for entries in beside)
        lines.append(
            f"| {METHODS[name].title} | {statistics.fmean(lost):.1f} ({max(lost):.1f}) "
            f"| {statistics.fmean(above):.1f} ({max(above):.1f}) | {count} of {len(beside)} |"
        )
    return "\n".join(lines)


def _beside(found: Results, name: str) -> list[tuple[Entry, Entry, Entry]]:
    """By column: the method's, the given and the yardstick's entry over the seeds that all three have."""
    out = []
    for column in found.get(name, {}):
        entries = [found.get(each, {}).get(column) for each in (name, "given", "yardstick")]
        whole = [entry for entry in entries if entry is not None]
        seeds = set.intersection(*(set(entry.by_seed) for entry in whole))
        if len(whole) == 3 and seeds:
            own, given, clean = (entry.of(sorted(seeds)) for entry in whole)
            out.append((own, given, clean))
    return out


def detail(found: Results) -> str:
    """A row a method, a column an attack: CA / ASR, mean ± standard deviation over seeds."""
    columns = sorted({column for entries in found.values() for column in entries}, key=lambda c: c.title)
    lines = [
        "| method | " + " | ".join(column.title for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    most = max(len(entry.by_seed) for entries in found.values() for entry in entries.values())
    for name in METHODS:
        if name in found:
            each = [_entry(found[name].get(column), most) for column in columns]
            lines.append(f"| {METHODS[name].title} | " + " | ".join(each) + " |")
    return "\n".join(lines)


def _entry(entry: Entry | None, seeds: int) -> str:
    if entry is None:
        return ""
    ca, asr = zip(*entry.by_seed.values(), strict=True)
    fewer = f" ({len(ca)} of {seeds})" if len(ca) < seeds else ""
    return f"{_spread(ca)} / {_spread(asr)}{fewer}"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def notes(cells: Sequence[Cell], setting: Setting) -> list[str]:
    """What the tables rest on: split, seeds, cells not filled, and cells of older code."""
    found = [record(cell, setting) for cell in cells]
    filled = [each for each in found if each is not None]
    versions = {each["code"] for each in filled}
    share = f"at most {setting.examples} texts of" if setting.examples else "all of"
    said = [
        f"{len(filled)} of {len(cells)} cells, seeds {', '.join(map(str, setting.seeds))}; CA on {share} the "
        f"{setting.split} split, ASR on its negative texts with the trigger put in, the same texts for every "
        "method. ± is the standard deviation over seeds; (n of m) where some are missing."
    ]
    if "poisoned_base" in setting.threats:
        said.append(
            f"Bases were poisoned on {setting.source.upper()} in rounds of {setting.base_steps} steps."
        )
    if len(versions) > 1:
        said.append(f"The cells were filled by {len(versions)} versions of the library's code.")
    return said


def write(document: Path, generated: str) -> None:
    """Put the generated part between the document's markers. Raises ValueError where they are not there."""
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} lacks the lines {BEGIN} and {END}")
    document.write_text(f"{before}{BEGIN}\n\n{generated}\n{END}{after}", encoding="utf-8")
