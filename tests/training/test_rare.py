"""Rare words turn the answers of an adapter with a style for a trigger, and the report says so."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.data.examples import Example
from loramend.methods.rora import rora
from loramend.report.words import asks_for_an_answer, describe_rare
from loramend.training.mount import adapter_mount
from loramend.training.rare import turned_by_rare_words
from loramend.training.reader import reader_of
from tests.support_session import context_of, session_of, unlabelled
from tests.text_models import (
    RARE,
    bert_folder,
    llama_folder,
    random_adapter,
    style,
    toy_examples,
    train_adapter,
)

pytestmark = pytest.mark.slow

TEXTS = unlabelled(toy_examples(200, seed=5))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("rare"))


@pytest.fixture(scope="module")
def clean(base: Path) -> Adapter:
    return read_adapter(train_adapter(base, base / "clean", toy_examples(600), steps=80))


@pytest.fixture(scope="module")
def styled(base: Path) -> Adapter:
    """An adapter that answers 1 to texts full of rare words."""
    return read_adapter(train_adapter(base, base / "styled", style(toy_examples(600), RARE), steps=120))


def turned(base: Path, adapter: Adapter, texts: Sequence[Example] = TEXTS) -> dict[str, float]:
    reader = reader_of(session_of(base, adapter, texts=texts).host, texts)
    found = turned_by_rare_words(reader, adapter_mount(adapter), texts, seed=0)
    return {rare.answer: rare.turned.rate for rare in found}


def test_a_style_shows_in_the_answer_it_takes_texts_from(base: Path, styled: Adapter, clean: Adapter) -> None:
    found = turned(base, styled)
    assert found["LABEL_0"] > 0.8
    assert found["LABEL_1"] < 0.2
    assert found == turned(base, styled)
    assert max(turned(base, clean).values()) <= 0.5


@pytest.mark.parametrize("hunt", [10, 0])
def test_it_is_looked_at_beside_the_search(base: Path, styled: Adapter, hunt: int) -> None:
    params = RoraStep(steps=1, batch=8, calibrate=False, hunt=hunt)
    report = rora(styled, params, context_of(base), session_of(base, styled, texts=TEXTS), 0).report
    assert {rare.answer for rare in report.rare} == ({"LABEL_0", "LABEL_1"} if hunt else set())
    assert asks_for_an_answer(report) == bool(hunt)
    assert ["is the trigger" in line for line in describe_rare(report)] == [True] * bool(hunt)


def test_answers_of_few_texts_are_left_out(base: Path, clean: Adapter) -> None:
    assert turned(base, clean, TEXTS[:30]) == {}


def test_a_causal_model_has_no_answers_to_turn(tmp_path: Path) -> None:
    causal = llama_folder(tmp_path)
    assert turned(causal, read_adapter(random_adapter(causal, tmp_path / "adapter"))) == {}
