"""The model card tells behaviour where it was measured, and the text that was read."""

import pytest

from loramend.contracts.report import Report
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
