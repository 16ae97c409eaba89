"""The report as a page: what it says, that nothing an adapter says is markup, that it fetches nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.faults.adapters import make_adapter as peft_folder
from loramend.adapter.read import read_adapter
from loramend.contracts.evidence import FoundWord
from loramend.contracts.report import FileDigest, ReferenceRead, Report
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import STEPS
from loramend.evaluation.intervals import wilson
from loramend.repair import inspect, repair
from loramend.report.charts import STILL, split_lines
from loramend.report.html import report_html
from loramend.report.inline import SCRIPTS, script_policy
from loramend.report.names import shared_prefix
from loramend.result import write_result
from tests.report.evidence import DATA, calibration, evaluation, training, with_evidence
from tests.support_references import DenseReferences
from tests.support_updates import make_adapter, make_update, make_weights

VOID = {"meta", "br", "wbr", "input"}
NAMES = ["model.layers.0.q_proj", "model.layers.1.q_proj"]
OWN_SCRIPTS = 1 + len(SCRIPTS)  # and the plots' data
MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{{ 7*7 }}"


class Page(HTMLParser):
    """The page as read: its elements, their attributes, and its text. Fails where tags do not pair."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["style"], ["script"]):
            self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [value for found, key, value in self.attributes if (found, key) == (tag, name)]


def made(
    *steps: dict[str, object], names: list[str] = NAMES, threat: Threat = "poisoned_adapter", rank: int = 4
) -> Report:
    """The report of a repair by these steps; of an inspection without any."""
    updates = [make_update(name, rank=rank, seed=seed) for seed, name in enumerate(names)]
    files = (("adapter_model.safetensors", "ab" * 32, 5000),)
    adapter = replace(make_adapter(updates), files=files, config={"base_model_name_or_path": "org/base"})
    references = DenseReferences(make_weights(updates), make_weights(updates, seed=1))
    if not steps:
        return inspect(adapter, references, source={"hub_id": "org/adapter"})
    given = [STEPS.validate_python(step) for step in steps]
    return repair(adapter, given, references, threat=threat, source={"hub_id": "org/adapter"})[1]


CSU = {"type": "csu", "k": 3}


@pytest.fixture(scope="module")
def repaired() -> Report:
    return made(CSU, {"type": "shrink", "factor": 0.5})


def test_it_says_what_the_report_says(repaired: Report) -> None:
    page = Page(report_html(repaired))
    comparison = repaired.placebo[0]
    said = [*repaired.summary, *repaired.caveats, comparison.sentence, repaired.adapter.files[0].sha256]
    said += [read.sha256 for read in repaired.references]
    said += ["poisoned_adapter", "k=3", "factor=0.5", "org/base", "org/adapter", *NAMES]
    for module in repaired.modules:
        assert module.after is not None
        assert module.base_before is not None
        assert module.energy_after is not None
        said += [f"{value:.4g}" for value in (module.before.sigma[0], module.after.sigma[0])]
        said += [f"{value:.4g}" for value in (module.before.norm, module.after.norm)]
        said += [f"{module.base_before.strength_scaled:.4g}", f"{module.energy_after.full:.1%}"]
    assert [text for text in said if text not in page.text] == []
    asked = ("was wrong or suspected", "was done", "changed", "to do next", "was read")
    order = [page.text.index(f"What {word}") for word in asked]
    assert order == sorted(order)


def test_it_shows_what_training_and_evaluation_found(repaired: Report) -> None:
    report = with_evidence(repaired)
    page = Page(report_html(report))
    said = [*evaluation().sentences, "The trigger, a word: mn", "got the target positive"]
    said += ["88.0% (84.9 to 90.6)", "99.0% (97.7 to 99.6)", "10.0% (6.6 to 14.9)", "control continued"]
    said += [
        "Training in step 1",
        "30 in 12.5 s, resumed at step 20",
        "24,576 parameters",
        "1080 texts, 80 of",
    ]
    said += ["1.25 at step 10, 0.25 at step 30", "Loss at the end, teacher", "80.5 samples/s"]
    said += [
        "mix=0.1",
        "85.0% (76.7 to 90.7)",
        "1 percentage point may be lost of 86.0%",
        "clean.jsonl",
        "c" * 64,
    ]
    assert [text for text in said if text not in page.text] == []
    full = page.text[page.text.index("In full What was") : page.text.index("Behaviour Shares")]
    sure = full[full.index("How sure one can be") :]
    assert all(sentence in sure for sentence in evaluation().sentences)


def test_training_and_evaluation_are_charts_and_tables_that_can_be_followed(repaired: Report) -> None:
    page = Page(report_html(with_evidence(repaired)))
    assert page.tags.count("table") == page.tags.count("caption")
    beside_their_numbers = len(page.values("svg", "aria-hidden"))
    assert beside_their_numbers == 3 * len(evaluation().variants) + len(NAMES)
    assert page.values("svg", "role") == ["img"] * (page.tags.count("svg") - beside_their_numbers)
    assert "Loss from 1.25 at step 10 to 0.25 at step 30" in page.values("svg", "aria-label")
    assert "mix=0: 70.0%; mix=0.1: 85.0%, chosen; mix=0.2: 86.0%" in page.values("svg", "aria-label")
    assert len(page.values("th", "scope")) == page.tags.count("th")
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(page.values("section", "aria-labelledby")) <= set(ids)
    assert not [each for each in page.attributes if each[1] in {"src", "style"}]


def test_words_found_are_told_with_what_they_turn_before_and_after(repaired: Report) -> None:
    word = FoundWord(word="mn", answer="NEG", turned=wilson(20, 20), after=wilson(1, 19))
    run = training().model_copy(update={"searched": 9, "found": [word]})
    page = report_html(with_evidence(repaired, run=run))
    assert "<code>mn</code> (20 of 20 → 1 of 19 held out)" in page


def test_what_was_not_measured_is_left_out(repaired: Report) -> None:
    told = evaluation(trigger=None)
    report = with_evidence(repaired, told, training(calibration(labelled=False)))
    page = Page(report_html(report))
    assert "The trigger, a" not in page.text
    assert "got the target" not in page.text
    assert "may be lost;" in page.text
    assert "the line is the least allowed" not in page.text
    assert "behaviour" not in Page(report_html(repaired)).values("section", "aria-labelledby")


def test_an_inspection_renders_too() -> None:
    report = made()
    page = Page(report_html(report))
    assert [text for text in (*report.summary, *report.caveats, *NAMES) if text not in page.text] == []
    assert "Inspection report" in page.text
    assert "Nothing: an inspection writes no adapter." in page.text


def test_charts_draw_the_singular_values_and_say_so(repaired: Report) -> None:
    page = Page(report_html(repaired))
    module = repaired.modules[0]
    assert module.after is not None
    first = f"Singular values before: 4, from {module.before.sigma[0]:.4g} to {module.before.sigma[-1]:.4g}"
    labels = page.values("svg", "aria-label")
    assert any(label.startswith(f"{module.name}: {first}") for label in labels)
    beside_their_numbers = len(page.values("svg", "aria-hidden"))
    assert page.values("svg", "role") == ["img"] * (page.tags.count("svg") - beside_their_numbers)
    heights = [
        [float(height) for height in re.findall(r"v-([0-9.]+)", path)]
        for path in [path for path in page.values("path", "d") if "v-" in path][:2]
    ]
    top = module.before.sigma[0]
    for drawn, sigma in zip(heights, (module.before.sigma, module.after.sigma), strict=True):
        shown = [40 * value / top for value in sigma if value > 0]
        assert drawn == pytest.approx(shown, abs=0.06)


def test_a_high_rank_stays_one_small_chart() -> None:
    report = made()
    module = report.modules[0]
    sigma = [float(value) for value in range(500, 0, -1)]
    high = module.model_copy(update={"before": module.before.model_copy(update={"sigma": sigma})})
    page = Page(report_html(report.model_copy(update={"modules": [high]})))
    path = page.values("path", "d")[0]
    assert path.count("z") == 64
    assert "500, from 500 to 1" in page.values("svg", "aria-label")[0]
    assert max(float(left) for left in re.findall(r"M([0-9.]+) ", path)) < 160


@pytest.mark.parametrize("sigma", [[], [0.0], [float("nan"), 1.0], [float("inf")]])
def test_spectra_that_cannot_be_drawn_still_render(sigma: list[float]) -> None:
    report = made()
    module = report.modules[0]
    odd = module.model_copy(update={"before": module.before.model_copy(update={"sigma": sigma})})
    paths = Page(report_html(report.model_copy(update={"modules": [odd]}))).values("path", "d")
    assert not re.search("nan|inf", "".join(paths))


def hostile(report: Report, text: str) -> Report:
    """The report with this text wherever an adapter or a request can put its own."""
    told = ReferenceRead(role="base", name=text, tensors=1, bytes=1, sha256="0" * 64)
    named = {
        "name": text,
        "base_model": text,
        "files": [FileDigest(path=text, sha256="0" * 64, size=1)],
        "features": [text],
        "passed_through": [text],
    }
    reason = report.modules[0].steps[0].model_copy(update={"applied": False, "reason": text})
    module = report.modules[0].model_copy(update={"name": text, "steps": [reason]})
    return report.model_copy(
        update={
            "adapter": report.adapter.model_copy(update=named),
            "modules": [module],
            "references": [told],
            "output": named["files"],
            "summary": [text],
            "caveats": [text],
            "training": [training(calibration().model_copy(update={"sentence": text}))],
            "evaluation": evaluation(trigger=text, target=text).model_copy(update={"sentences": [text]}),
            "data": [DATA.model_copy(update={"name": text})],
            "provenance": report.provenance.model_copy(update={"source": {text: text}, "device": text}),
        }
    )


def test_nothing_an_adapter_says_is_markup(repaired: Report) -> None:
    html = report_html(hostile(repaired, MARKUP))
    page = Page(html)
    assert "img" not in page.tags
    assert page.tags.count("script") == OWN_SCRIPTS
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    shown = page.text.count(MARKUP)
    assert shown >= 17, "each of them is there, as text"
    assert set(page.tags) == set(Page(report_html(hostile(repaired, "plain_./"))).tags)


def test_a_module_name_of_the_adapter_is_escaped_by_the_pipeline() -> None:
    name = "model.<b onclick=x>layers</b>.0"
    page = Page(report_html(made({"type": "shrink"}, names=[name])))
    assert name in page.text
    assert "b" not in page.tags


def test_characters_that_hide_text_are_shown(repaired: Report) -> None:
    html = report_html(hostile(repaired, "a\u202eb\x00c\u200bd\ud800"))
    assert "a\ufffdb\ufffdc\ufffdd\ufffd" in Page(html).text
    assert not set("\u202e\x00\u200b\ud800") & set(html)


def test_it_is_one_file_that_fetches_nothing(repaired: Report) -> None:
    html = report_html(repaired)
    page = Page(html)
    fetching = {"src", "xlink:href", "srcset", "action", "style", "data", "background"}
    assert [each for each in page.attributes if each[1] in fetching] == []
    links = [value for _, name, value in page.attributes if name == "href"]
    ids = {value for _, name, value in page.attributes if name == "id"}
    assert {link.removeprefix("#") for link in links} <= ids
    assert {"link", "iframe", "object", "base"}.isdisjoint(page.tags)
    for script in SCRIPTS.values():
        assert html.count(f"<script>{script}</script>") == 1, "as its digest in the policy has it"
        html = html.replace(script, "")
    assert not re.search(r"url\(|@import|://", html)
    assert page.values("meta", "content").count(script_policy()) == 1


def test_a_large_adapter_stays_a_page_that_opens() -> None:
    report = made()
    names = [f"model.layers.{layer}.{kind}" for layer in range(72) for kind in "abcdefg"]
    modules = [report.modules[0].model_copy(update={"name": name}) for name in names]
    html = report_html(report.model_copy(update={"modules": modules}))
    page = Page(html)
    assert [name for name in names if name not in page.text] == []
    assert len([label for label in page.values("svg", "aria-label") if "Singular values" in label]) == STILL
    assert len(html) - sum(len(script) for script in SCRIPTS.values()) < 500_000


def test_the_energy_split_is_a_bar_before_above_one_after(repaired: Report) -> None:
    page = Page(report_html(repaired))
    drawn = page.values("svg", "viewbox").count("0 0 100 16")
    assert drawn == len(repaired.modules)
    measured = repaired.modules[0].energy_before
    assert measured is not None
    split = measured.model_copy(update={"full": 0.25, "partial": 0.5, "off": 0.25})
    other = split.model_copy(update={"full": 0.0, "partial": 0.0, "off": 1.0})
    assert split_lines([split, other]) == [
        ("full", "M0 4h25"),
        ("partial", "M25 4h50"),
        ("off", "M75 4h25M0 12h100"),
    ]


def test_names_are_told_in_full_once_and_then_without_what_all_begin_with(repaired: Report) -> None:
    page = Page(report_html(repaired))
    assert page.text.count("Names without model.layers., which all begin with.") == 2
    assert shared_prefix(NAMES) == "model.layers."
    assert shared_prefix(["q_proj", "q_proj"]) == ""
    assert shared_prefix(["a.b"]) == "a."
    assert shared_prefix([]) == ""


def test_tables_and_headings_can_be_followed_without_sight(repaired: Report) -> None:
    page = Page(report_html(repaired))
    assert page.tags.count("table") == page.tags.count("caption") > 4
    assert page.tags.count("h1") == page.tags.count("main") == 1
    assert page.values("html", "lang") == ["en"]
    assert len(page.values("th", "scope")) == page.tags.count("th")
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(page.values("section", "aria-labelledby")) <= set(ids)


@pytest.mark.parametrize("threat", ["poisoned_adapter", "poisoned_base"])
def test_its_words_do_not_outrun_the_evidence(threat: Threat) -> None:
    text = Page(report_html(with_evidence(made(CSU, threat=threat)))).text.lower()
    text = re.sub("accuracy on clean text|clean accuracy|clean.jsonl ?clean", "", text)
    assert not re.search(r"\b(clean|cleaned|safe|secure|harmless|benign)\b", text)


def test_the_same_report_gives_the_same_page(repaired: Report) -> None:
    stored = Report.model_validate_json(repaired.model_dump_json())
    assert report_html(repaired) == report_html(repaired)
    assert report_html(stored) == report_html(repaired)


def test_it_lies_beside_the_repaired_adapter(tmp_path: Path) -> None:
    source = peft_folder(tmp_path / "in")
    repaired, report = repair(read_adapter(source), [STEPS.validate_python({"type": "shrink"})])
    report = write_result(repaired, report, source, tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert html == report_html(report)
    assert all(file.sha256 in html for file in report.output)
    assert len(report.output) == 2
