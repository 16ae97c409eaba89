"""What the pages' plots are given: the report's own numbers, and no text that could be markup."""

import json
from typing import Any

import pytest

from loramend.contracts.report import Report
from loramend.report.plots import as_json, diff_plots, report_plots
from tests.report.evidence import calibration, training, with_evidence
from tests.report.test_diff import compared
from tests.report.test_html import CSU, MARKUP, NAMES, hostile, made


@pytest.fixture(scope="module")
def repaired() -> Report:
    return made(CSU)


def measures(plots: dict[str, Any]) -> dict[str, list[list[float | None]]]:
    return {measure["key"]: measure["values"] for measure in plots["measures"]}


def test_modules_bring_their_numbers_of_both_sides(repaired: Report) -> None:
    plots = report_plots(repaired)
    assert plots["sides"] == ["before", "after"]
    layers = ["model.layers.0", "model.layers.1"]
    assert plots["modules"] == {"layers": layers, "kinds": ["q_proj"], "each": [[0, 0], [1, 0]]}
    assert [f"{layer}.q_proj" for layer in layers] == NAMES
    for module, before, after in zip(repaired.modules, *plots["sigma"], strict=True):
        assert module.after is not None
        assert before == pytest.approx(module.before.sigma, rel=1e-3)
        assert after == pytest.approx(module.after.sigma, rel=1e-3, abs=1e-12)
    found = measures(plots)
    assert {"moved", "norm", "strength_scaled", "alignment", "full", "partial", "off"} <= set(found)
    assert [len(found[key]) for key in ("moved", "strength_scaled", "full")] == [1, 2, 2]
    [first, second] = repaired.modules
    assert first.energy_after is not None
    assert second.base_before is not None
    assert found["full"][1][0] == pytest.approx(first.energy_after.full, rel=1e-3)
    assert found["strength_scaled"][0][1] == pytest.approx(second.base_before.strength_scaled, rel=1e-3)


def test_an_inspection_has_one_side_and_what_was_not_measured_is_left_out() -> None:
    report = made()
    assert len(report_plots(report)["sigma"]) == 1
    bare = [
        module.model_copy(update={"base_before": None, "energy_before": None}) for module in report.modules
    ]
    found = measures(report_plots(report.model_copy(update={"modules": bare})))
    assert {"strength_scaled", "full", "moved"}.isdisjoint(found)
    assert len(found["norm"]) == 1


def test_shares_keep_their_counts_and_intervals(repaired: Report) -> None:
    plots = report_plots(with_evidence(repaired))
    after = {(one["variant"], one["what"]): one for one in plots["behaviour"]}["after", "attack success"]
    assert (after["count"], after["n"], after["rate"]) == (30, 500, 0.06)
    assert after["low"] < after["rate"] < after["high"]
    [told] = plots["calibration"]
    assert told["floor"] == pytest.approx(0.85)
    assert [one["chosen"] for one in told["points"] if one["what"] == "agreement"] == [False, True, False]
    unlabelled = report_plots(with_evidence(repaired, run=training(calibration(labelled=False))))
    assert unlabelled["calibration"][0]["floor"] is None


def test_a_comparison_brings_the_same() -> None:
    found = compared(base=True)
    plots = diff_plots(found)
    assert plots["sides"] == ["A", "B"]
    assert measures(plots)["turned"][0][1] == 0, "the same update in other factors"
    assert plots["measures"][0]["key"] == "distance", "what the map shows first"
    assert {"norm", "strength_scaled", "alignment"} <= set(measures(plots))


def test_the_json_ends_no_script_and_hides_nothing(repaired: Report) -> None:
    for text in (MARKUP, "</script><!--", "a\u202eb\x00c\u2028d\ud800"):
        written = as_json(report_plots(hostile(repaired, text)))
        assert not set("<>&\u202e\u2028") & set(written)
        [shown] = json.loads(written)["modules"]["each"]
        assert shown == "".join(char if char.isprintable() else "\ufffd" for char in text)


def test_what_cannot_be_drawn_is_null(repaired: Report) -> None:
    module = repaired.modules[0]
    odd = module.model_copy(
        update={"before": module.before.model_copy(update={"sigma": [float("nan"), 1.0, float("inf")]})}
    )
    written = as_json(report_plots(repaired.model_copy(update={"modules": [odd]})))
    assert json.loads(written)["sigma"][0] == [[None, 1.0, None]]
