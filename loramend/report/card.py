"""The model card written beside a repaired adapter: the Hub's YAML metadata and the report in short."""

import json
import re
from typing import Any

from loramend.contracts.evidence import Evaluation
from loramend.contracts.names import NAME, REPO_ID
from loramend.contracts.report import Report
from loramend.evaluation.words import percent

# A dataset of the Hub as data is named: ID@commit/file
_DATASET = re.compile(rf"({NAME}/{NAME})@[0-9a-f]{{40}}/")


def model_card(report: Report) -> str:
    """README.md of the repaired adapter, in the Hub's format (YAML front matter, then Markdown)."""
    lines = ["---"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in _metadata(report).items()]
    lines += ["---", ""]
    lines += ["# Repaired LoRA adapter", ""]
    lines += [f"{sentence}\n" for sentence in report.summary]
    lines += ["## What was done", ""]
    for step in report.steps:
        lines.append(f"- `{json.dumps(step.model_dump(mode='json'), ensure_ascii=True)}`")
    totals = report.totals
    lines += ["", "| | before | after |", "|---|---|---|"]
    after = "" if totals.norm_after is None else f"{totals.norm_after:.4g}"
    lines.append(f"| ‖ΔW‖ over {totals.modules} modules | {totals.norm_before:.4g} | {after} |")
    if report.evaluation is not None:
        lines += ["", "## Behaviour", "", *_behaviour(report.evaluation)]
    lines += ["", "## How sure one can be", ""]
    lines += [f"- {caveat}" for caveat in report.caveats]
    lines += ["", "## Provenance", ""]
    lines += [f"- {key}: `{_code(value)}`" for key, value in sorted(report.provenance.source.items())]
    lines += [f"- read `{_code(file.path)}`, sha256 `{file.sha256}`" for file in report.adapter.files]
    lines += [
        f"- {read.role} model `{_code(read.name)}`: {read.tensors} tensors, sha256 `{read.sha256}`"
        for read in report.references
    ]
    lines += [
        f"- {read.role} text `{_code(read.name)}`: {read.examples} examples, sha256 `{read.sha256}`"
        for read in report.data
    ]
    lines += [
        f"- loramend {report.provenance.loramend}, seed {report.provenance.seed}, "
        f"{report.provenance.started_at:%Y-%m-%d}",
        "",
        "`report.json` beside this file has every number, `report.html` shows them; `bom.cdx.json` is the "
        "bill of materials; `original/` has the adapter as it came.",
        "",
    ]
    return "\n".join(lines)


def _metadata(report: Report) -> dict[str, Any]:
    """The front matter: what the Hub reads, and under `loramend` where the adapter comes from. It is written
    as JSON, which is YAML: no name breaks out of its value."""
    known: dict[str, Any] = {}
    base = report.adapter.base_model
    if base and re.fullmatch(REPO_ID, base):
        known |= {"base_model": base, "base_model_relation": "adapter"}
    library = {"peft": "peft"}.get(report.adapter.format, "diffusers")
    known |= {"library_name": library, "tags": ["lora", "loramend"]}
    datasets = {found[1] for read in report.data if (found := _DATASET.match(read.name))}
    if datasets:
        known["datasets"] = sorted(datasets)
    known["loramend"] = {
        "version": report.provenance.loramend,
        "repaired_at": f"{report.provenance.started_at:%Y-%m-%dT%H:%M:%SZ}",
        "threat": report.threat,
        "source": dict(sorted(report.provenance.source.items())),
        "read": {file.path: file.sha256 for file in report.adapter.files},
        "wrote": {file.path: file.sha256 for file in report.output},
        "steps": [step.type for step in report.steps],
        "seed": report.provenance.seed,
    }
    return known


def _behaviour(evaluation: Evaluation) -> list[str]:
    """A row an adapter; 95% intervals in brackets."""
    lines = ["| adapter | right answers | attack success | probes that flip |", "|---|---|---|---|"]
    if evaluation.metric == "refusal":
        lines[0] = lines[0].replace("right answers", "refusals")
    for variant in evaluation.variants:
        shares = (variant.clean, variant.attack, variant.flips)
        cells = " | ".join("–" if share is None else percent(share) for share in shares)
        lines.append(f"| {variant.name} | {cells} |")
    lines += ["", "Shares with their 95% intervals."]
    return lines


def _code(text: str) -> str:
    """Text from an adapter made safe inside a code span."""
    return "".join(" " if not char.isprintable() else char for char in text).replace("`", "'")
