"""Markup planted wherever an adapter, a request or a Hub can put a text stays text: on the report's page and
on the page of a comparison."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from loramend.adapter.read import read_adapter
from loramend.contracts.report import Report
from loramend.contracts.steps import STEPS
from loramend.repair import repair
from loramend.report.diff import diff
from loramend.report.diff_html import diff_html
from loramend.report.html import report_html
from tests.report.evidence import with_evidence
from tests.report.test_html import CSU, MARKUP, OWN_SCRIPTS, Page, made

pytestmark = pytest.mark.slow


def texts(document: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The places of all texts in a JSON document."""
    if isinstance(document, str):
        return [path]
    parts: Any = ()
    if isinstance(document, (dict, list)):
        parts = document.items() if isinstance(document, dict) else enumerate(document)
    return [found for key, part in parts for found in texts(part, (*path, key))]


def put(document: Any, path: tuple[str | int, ...], text: str) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = text


def everywhere(report: Report, text: str) -> tuple[Report, int]:
    """The report with this text in every place that takes any text, and how many there are."""
    document = report.model_dump(mode="json")
    count = 0
    for path in texts(document):
        tried = json.loads(json.dumps(document))
        put(tried, path, text)
        try:
            Report.model_validate(tried)
        except ValidationError:
            continue
        document, count = tried, count + 1
    return Report.model_validate(document), count


def tags_of(html: str) -> set[str]:
    page = Page(html)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.tags.count("script") == OWN_SCRIPTS
    return set(page.tags)


def test_in_every_text_of_a_report() -> None:
    report = with_evidence(made(CSU, {"type": "shrink", "factor": 0.5}))
    marked, count = everywhere(report, MARKUP)
    plain, _ = everywhere(report, "plain_./")
    assert count > 40
    html = report_html(marked)
    assert tags_of(html) == tags_of(report_html(plain))
    assert "img" not in tags_of(html)
    assert Page(html).text.count(MARKUP) > 30


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """As a stranger makes it: names of modules and values of its config are markup."""
    module = "base_model.model.model.layers.0.<b onclick=alert(1)>self_attn</b>.q_proj"
    random = np.random.default_rng(0)
    tensors = {
        f"{module}.lora_A.weight": random.standard_normal((4, 32)).astype(np.float32),
        f"{module}.lora_B.weight": random.standard_normal((32, 4)).astype(np.float32),
    }
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": f"org/{MARKUP}",
        "revision": MARKUP,
        "task_type": MARKUP,
        "auto_mapping": {"base_model_class": MARKUP, MARKUP: MARKUP},
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_in_modules_config_and_repository_by_the_pipeline(adapter: Path) -> None:
    read = read_adapter(adapter)
    source = {"hub_id": f"org/{MARKUP}", "revision": MARKUP}
    repaired, report = repair(read, [STEPS.validate_python({"type": "shrink"})], source=source)
    html = report_html(report)
    assert {"img", "b"}.isdisjoint(tags_of(html))
    text = Page(html).text
    assert "<b onclick=alert(1)>self_attn</b>" in text
    assert text.count(MARKUP) >= 2, "base model and source"
    compared = diff_html(diff(read, repaired, source={"a": MARKUP, "b": MARKUP}))
    assert {"img", "b"}.isdisjoint(tags_of(compared))
