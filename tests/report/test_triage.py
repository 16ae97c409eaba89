"""What the forms of a report say of a triage."""

import re
from dataclasses import replace

import pytest

from loramend.bank.describe import describe
from loramend.contracts.report import Report
from loramend.repair import inspect
from loramend.report.html import report_html
from tests.bank.adapters import opened
from tests.report.test_html import MARKUP, OWN_SCRIPTS, Page, made
from tests.report.test_sarif import run_of, texts
from tests.support_updates import make_adapter, make_update

NAME = f"model.{MARKUP}.0"


def inspected(factor: float, *, name: str = "model.layers.0.q_proj", others: int = 8) -> Report:
    """An adapter beside others of its kind, its update as strong as theirs times `factor`."""
    bank = []
    for index in range(others):
        digest = f"{index:064x}"
        adapter = replace(
            make_adapter([make_update(name, seed=index)]), files=(("a.safetensors", digest, 1),)
        )
        bank.append(describe(adapter))
    odd = make_adapter([make_update(name, seed=99, scale=2.0 * factor)])
    return inspect(replace(odd, files=(("a.safetensors", "f" * 64, 1),)), bank=opened(bank))


@pytest.fixture(scope="module")
def unlike() -> Report:
    return inspected(10.0)


def test_the_page_shows_the_adapter_beside_the_bank(unlike: Report) -> None:
    page = Page(report_html(unlike))
    assert unlike.triage is not None
    for words in (*unlike.triage.sentences, *(limit.text for limit in unlike.triage.limits), "bank.json"):
        assert words in page.text
    assert page.tags.count("table") == page.tags.count("caption")
    assert len(page.values("th", "scope")) == page.tags.count("th")
    assert "stands out" in page.values("svg", "aria-label")


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_its_words_do_not_outrun_the_evidence(factor: float) -> None:
    report = inspected(factor)
    assert report.triage is not None
    assert report.triage.verdict == ("unlike_the_bank" if factor > 1 else "within_the_bank")
    told = " ".join((*report.triage.sentences, *report.summary)).lower()
    assert not re.search(r"\b(clean|cleaned|safe|secure|harmless|benign|backdoored|malicious)\b", told)
    assert report.triage.sentences[0] in report.summary


def test_too_few_to_compare_and_no_bank_are_told() -> None:
    few = Page(report_html(inspected(1.0, others=2))).text
    assert "No comparison was possible" in few
    none = made()
    assert none.triage is not None
    page = Page(report_html(none)).text
    assert "no bank was given" in page
    assert not any("bank" in sentence for sentence in none.summary)
    earlier = none.model_copy(update={"triage": None})
    assert "Triage" not in Page(report_html(earlier)).text


def test_an_outlier_is_a_note_for_collectors_and_no_more(unlike: Report) -> None:
    [told] = texts(run_of(unlike), "unlike-bank")
    assert unlike.triage is not None
    assert told == " ".join(unlike.triage.sentences)
    run = run_of(unlike)
    assert [each["kind"] for each in run["results"] if each["ruleId"] == "unlike-bank"] == ["review"]
    assert texts(run_of(inspected(1.0)), "unlike-bank") == []


def test_a_modules_name_is_no_markup() -> None:
    page = Page(report_html(inspected(10.0, name=NAME)))
    assert page.text.count(MARKUP) >= 2
    assert "img" not in page.tags
    assert page.tags.count("script") == OWN_SCRIPTS
