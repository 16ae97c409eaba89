"""The report as SARIF: valid by its schema, in the report's words, nothing of an adapter's out of place."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loramend.contracts.evidence import ContrastWord, FoundWord
from loramend.contracts.report import Report
from loramend.evaluation.intervals import wilson
from loramend.report.sarif import report_sarif
from tests.report.evidence import evaluation, training, with_evidence
from tests.report.test_html import CSU, MARKUP, hostile, made

SCHEMA = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text(encoding="utf-8"))


def run_of(report: Report) -> dict[str, Any]:
    """The log's one run, after validation."""
    log = json.loads(report_sarif(report))
    jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(log)
    [run] = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] == "none" or result["kind"] == "fail", "section 3.27.10"
    assert isinstance(run, dict)
    return run


def texts(run: dict[str, Any], rule: str) -> list[str]:
    told = [result["message"]["text"] for result in run["results"] if result["ruleId"] == rule]
    return [
        text.replace("\\[", "[").replace("\\]", "]").replace("{{", "{").replace("}}", "}") for text in told
    ]


def test_a_repair_is_told_in_the_reports_own_words() -> None:
    report = with_evidence(made(CSU))
    run = run_of(report)
    assert texts(run, "summary") == report.summary
    assert texts(run, "caveat") == report.caveats
    assert all(comparison.sentence in " ".join(texts(run, "placebo")) for comparison in report.placebo)
    after = next(variant for variant in evaluation().variants if variant.name == "after")
    assert after.attack is not None
    [attack] = texts(run, "attack-success")
    assert attack.startswith(f"{after.attack.count} of {after.attack.n} triggered examples")
    assert {artifact["hashes"]["sha-256"] for artifact in run["artifacts"]} == {
        file.sha256 for file in (*report.adapter.files, *report.output)
    }
    assert "error" not in {result["level"] for result in run["results"]}


def test_a_word_that_turns_texts_from_one_place_is_no_warning() -> None:
    sure = FoundWord(word="mn", answer="NEG", turned=wilson(20, 20), anywhere=wilson(20, 20))
    bound = sure.model_copy(update={"word": "dull", "anywhere": wilson(12, 20)})
    found = training().model_copy(update={"found": [sure, bound]})
    run = run_of(with_evidence(made(CSU), run=found))
    told = [result for result in run["results"] if result["ruleId"] == "turning-word"]
    assert [result["level"] for result in told] == ["warning", "none"]
    assert "20 of 20 texts away" in told[0]["message"]["text"]
    assert "20 of 20 texts, from one place alone, away" in told[1]["message"]["text"]


def test_words_of_a_style_are_a_warning_an_answer() -> None:
    words = [
        ContrastWord(word=f"word{number}", answer=answer, given=1.5, student=0.1)
        for answer in ("NEG", "POS")
        for number in range(8)
    ]
    run = run_of(with_evidence(made(CSU), run=training().model_copy(update={"contrast": words})))
    told = [result for result in run["results"] if result["ruleId"] == "style-words"]
    assert [result["level"] for result in told] == ["warning"] * 2
    assert "away from NEG" in told[0]["message"]["text"]
    assert "away from POS" in told[1]["message"]["text"]


def test_an_inspection_and_a_report_without_files_are_valid_too() -> None:
    report = made()
    assert texts(run_of(report), "summary") == report.summary
    run_of(report.model_copy(update={"adapter": report.adapter.model_copy(update={"files": []})}))


@pytest.mark.parametrize("text", [MARKUP, "a\u202eb\x00c %41 ü", "\ud800"])
def test_what_an_adapter_says_stays_inside_its_strings(text: str) -> None:
    report = with_evidence(made(CSU), evaluation(), training())
    run = run_of(hostile(report, text))
    for artifact in run["artifacts"]:
        assert artifact["location"]["uri"].isascii()
        assert "<" not in artifact["location"]["uri"]


def test_no_name_makes_a_link_or_a_placeholder() -> None:
    run = run_of(hostile(made(CSU), "[press here](http://evil.example) {0}"))
    shown = [result["message"]["text"] for result in run["results"]]
    assert any("press here" in text for text in shown)
    assert not any("[press here](" in text.replace("\\[", "") for text in shown)
    assert not any("{0}" in text.replace("{{", "").replace("}}", "") for text in shown)


def test_the_same_report_gives_the_same_log() -> None:
    report = made(CSU)
    assert report_sarif(report) == report_sarif(Report.model_validate_json(report.model_dump_json()))
