"""Data on the command line: files, datasets of a Hub, field maps, triggers."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer

from loramend.cli.data import parse_fields, read_corpus, read_data
from loramend.cli.evaluation import check_together, evaluation_spec, parse_trigger
from loramend.contracts.data import Metric, Trigger
from loramend.contracts.errors import DataError
from loramend.data.examples import Dataset, Example
from tests.hub.local import LocalHub

TEXTS = b'{"sentence": "good", "label": 1}\n'


def test_a_field_map_is_for_all_files_or_for_one() -> None:
    maps = parse_fields(["text=sentence,label = stars", "unlabelled:text=body"])
    assert maps["clean"] == maps["evaluation"] == {"text": "sentence", "label": "stars"}
    assert maps["unlabelled"] == {"text": "body", "label": "stars"}
    assert parse_fields(None)["clean"] == {}
    assert parse_fields(["text=a:b"])["clean"] == {"text": "a:b"}


@pytest.mark.parametrize("wrong", ["text", "text=", "txt=a", "cleen:text=a", "clean:", "", "text=a,,label=b"])
def test_a_wrong_field_map_is_refused(wrong: str) -> None:
    with pytest.raises(typer.BadParameter, match="ours are text, label"):
        parse_fields([wrong])


def test_files_become_a_corpus(tmp_path: Path) -> None:
    for name in ("clean", "test"):
        (tmp_path / f"{name}.jsonl").write_bytes(TEXTS)
    corpus = read_corpus(
        {"clean": f"{tmp_path}/clean.jsonl", "unlabelled": None, "evaluation": f"{tmp_path}/test.jsonl"},
        parse_fields(["text=sentence"]),
        validation_share=0.3,
    )
    assert [dataset.role for dataset in corpus.datasets()] == ["clean", "evaluation"]
    assert corpus.clean is not None
    assert corpus.clean.examples == (Example("good", 1),)
    assert corpus.clean.name == f"{tmp_path}/clean.jsonl"
    assert corpus.validation_share == 0.3


@pytest.mark.parametrize(
    "text",
    ["clean.jsonl", "data/clean.JSONL", "/no/such", "./x", "a/b/c", "a b", "alice/data:", "a/b@:x.jsonl"],
)
def test_what_is_neither_file_nor_dataset_is_refused_without_a_network(text: str) -> None:
    with pytest.raises(DataError) as caught:
        read_data(text, "clean", parse_fields(None), option="--clean")
    assert (caught.value.code, caught.value.where) == ("data_not_found", "--clean")


def test_a_trigger_is_a_kind_and_a_text() -> None:
    assert parse_trigger(None) is None
    assert parse_trigger("word:mn") == Trigger(kind="word", text="mn")
    assert parse_trigger("prefix:Note: ") == Trigger(kind="prefix", text="Note: ")
    for wrong in ("mn", "words:mn", "word:", ":mn"):
        with pytest.raises(typer.BadParameter, match="KIND:TEXT"):
            parse_trigger(wrong)


def test_options_that_need_one_another() -> None:
    check_together(None, None, None)
    check_together("word:mn", None, "1")
    check_together(None, "t.jsonl", "1")
    for wrong in (("word:mn", "t.jsonl", "1"), ("word:mn", None, None), (None, "t", None), (None, None, "1")):
        with pytest.raises(typer.BadParameter):
            check_together(*wrong)


@pytest.mark.parametrize(
    ("label", "target", "meant"),
    [(1, "0", 0), (1, "negative", "negative"), ("1", "0", "0"), (None, "12", "12"), (1, None, None)],
)
def test_the_target_is_a_number_where_labels_are(
    label: int | str | None, target: str | None, meant: int | str | None
) -> None:
    data = Dataset("evaluation", "test", "0" * 64, "classification", (Example("a", label),))
    metric: Metric = "label"
    trigger = parse_trigger("word:mn") if target else None
    spec = evaluation_spec(
        data, trigger=trigger, target=target, metric=metric, probes=3, max_examples=4, max_new_tokens=5
    )
    assert spec.target == meant
    assert type(spec.target) is type(meant)
    assert (spec.metric, spec.probes, spec.max_examples, spec.max_new_tokens) == ("label", 3, 4, 5)


SCRIPT = """
    import json, sys
    from loramend.cli.data import parse_fields, read_data
    from loramend.contracts.errors import LoramendError

    told = []
    for text in sys.argv[1:]:
        try:
            read = read_data(text, "clean", parse_fields(["text=sentence"]), option="--clean")
            told.append([read.name, len(read.examples)])
        except LoramendError as error:
            told.append(error.code)
    json.dump(told, sys.stdout)
"""


@pytest.mark.e2e
def test_datasets_by_hub_id(hub: LocalHub, tmp_path: Path) -> None:
    """With nothing set but the Hub's own variables."""
    old = hub.put("alice/data", {"train.jsonl": TEXTS}, kind="datasets")
    new = hub.put("alice/data", {"train.jsonl": TEXTS * 2, "sub/test.jsonl": TEXTS}, kind="datasets")
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    asked = [
        "alice/data:sub/test.jsonl",
        f"alice/data@{old}",
        "alice/data",
        "alice/data:x.jsonl",
        "alice/none",
    ]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), *asked]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout)
    assert told == [
        [f"alice/data@{new}/sub/test.jsonl", 1],
        [f"alice/data@{old}/train.jsonl", 1],
        "data_not_found",
        "data_not_found",
        "hub_not_found",
    ]
