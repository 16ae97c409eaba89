"""The model card tells behaviour where it was measured, and the text that was read."""

from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from loramend.contracts.report import FileDigest, Report
from loramend.contracts.steps import STEPS
from loramend.repair import repair
from loramend.report.card import model_card
from tests.report.evidence import DATA, evaluation, with_evidence
from tests.support_updates import make_adapter, make_update


@pytest.fixture(scope="module")
def report() -> Report:
    adapter = make_adapter([make_update("model.layers.0.q_proj")])
    return repair(adapter, [STEPS.validate_python({"type": "shrink"})])[1]


def test_behaviour_is_a_row_an_adapter(report: Report) -> None:
    card = model_card(with_evidence(report))
    assert "| before | 88.0% (84.9 to 90.6) | 99.0% (97.7 to 99.6) | 10.0% (6.6 to 14.9) |" in card
    assert [card.count(f"| {name} | ") for name in ("after", "fresh_lora", "continued", "shrink")] == [1] * 4
    assert all(sentence in card for sentence in evaluation().sentences)
    assert f"- clean text `clean.jsonl`: 100 examples, sha256 `{DATA.sha256}`" in card


def test_what_was_not_measured_is_a_dash(report: Report) -> None:
    card = model_card(with_evidence(report, evaluation(trigger=None)))
    assert "| before | 88.0% (84.9 to 90.6) | – | 10.0% (6.6 to 14.9) |" in card
    assert "## Behaviour" not in model_card(report)


def test_a_file_name_is_no_markup(report: Report) -> None:
    named = DATA.model_copy(update={"name": "`a\n# b"})
    card = model_card(report.model_copy(update={"data": [named]}))
    assert "- clean text `'a # b`: 100" in card


def front_matter(card: str) -> dict[str, Any]:
    opening, matter, _ = card.split("---\n", 2)
    assert opening == ""
    metadata = yaml.safe_load(matter)
    assert isinstance(metadata, dict)
    return metadata


def test_the_front_matter_is_the_hubs_and_tells_the_provenance(report: Report) -> None:
    adapter = report.adapter.model_copy(update={"base_model": "org/base"})
    commit = "0123456789abcdef0123456789abcdef01234567"
    read = [DATA, DATA.model_copy(update={"name": f"someone/data@{commit}/train.jsonl"})]
    source = {"hub_id": "someone/adapter", "revision": commit}
    told = report.model_copy(
        update={
            "adapter": adapter,
            "data": read,
            "output": [FileDigest(path="adapter_model.safetensors", sha256="a" * 64, size=1)],
            "provenance": report.provenance.model_copy(update={"source": source}),
        }
    )
    card = model_card(told)
    metadata = front_matter(card)
    loramend = metadata.pop("loramend")
    assert metadata == {
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "tags": ["lora", "loramend"],
        "datasets": ["someone/data"],
    }
    assert loramend["source"] == source
    assert loramend["wrote"] == {"adapter_model.safetensors": "a" * 64}
    assert (loramend["steps"], loramend["threat"]) == (["shrink"], "poisoned_adapter")
    hub = ModelCard(card).data
    assert (hub.base_model, hub.library_name, hub.datasets) == ("org/base", "peft", ["someone/data"])


@pytest.mark.parametrize("name", ["/a/path", "x: y\n---\nlicense: mit", "a'\"#{["])
def test_no_name_breaks_out_of_the_front_matter(report: Report, name: str) -> None:
    adapter = report.adapter.model_copy(
        update={"base_model": name, "files": [FileDigest(path=name, sha256="a" * 64, size=1)]}
    )
    metadata = front_matter(model_card(report.model_copy(update={"adapter": adapter})))
    assert "base_model" not in metadata
    assert "license" not in metadata
    assert metadata["loramend"]["read"] == {name: "a" * 64}
