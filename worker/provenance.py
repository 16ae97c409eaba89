"""loramend.json: where an adapter that is published comes from, in short."""

import json
from pathlib import Path
from typing import Any

from loramend.contracts.files import PROVENANCE
from loramend.contracts.report import Report


def write_provenance(report: Report, job_id: str, folder: Path) -> None:
    """Write loramend.json into `folder`."""
    text = json.dumps(provenance(report, job_id), indent=2, ensure_ascii=False) + "\n"
    (folder / PROVENANCE).write_text(text, encoding="utf-8")


def provenance(report: Report, job_id: str) -> dict[str, Any]:
    """Where a repaired adapter comes from and what was done to it, out of its report."""
    told = report.model_dump(mode="json")
    origin = told["provenance"]
    return {
        "job": job_id,
        "source": origin["source"],
        "input": told["adapter"]["files"],
        "base_model": told["adapter"]["base_model"],
        "threat": told["threat"],
        "steps": told["steps"],
        "seed": origin["seed"],
        "references": [
            {key: read[key] for key in ("role", "name", "tensors", "sha256")} for read in told["references"]
        ],
        "output": told["output"],
        "loramend": origin["loramend"],
        "versions": origin["versions"],
        "started_at": origin["started_at"],
    }
