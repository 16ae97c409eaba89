"""Rare words turn a style-triggered adapter's answers, and then nothing is asked about odd texts."""

from pathlib import Path

import numpy as np
import pytest

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.evidence import TrainingReport
from loramend.methods.rora import rora
from loramend.report.words import describe_rare
from loramend.training.perturb import exchange
from loramend.training.rare import turned_by_rare_words
from tests.support_session import context_of, session_of, unlabelled
from tests.text_models import RARE, bert_folder, llama_folder, random_adapter, toy_examples, train_adapter

pytestmark = pytest.mark.slow

TEXTS = unlabelled(toy_examples(200, seed=5))
STEP = RoraStep(steps=1, batch=8, calibrate=False, hunt=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("rare"))


@pytest.fixture(scope="module")
def clean(base: Path) -> Adapter:
    return read_adapter(train_adapter(base, base / "clean", toy_examples(600), steps=80))


@pytest.fixture(scope="module")
def styled(base: Path) -> Adapter:
    """An adapter that answers 1 to texts full of rare words."""
    rng = np.random.default_rng(0)
    texts = toy_examples(600)
    odd = [(exchange(text, RARE, 0.4, rng), 1) for text, label in texts if label == 0]
    return read_adapter(train_adapter(base, base / "styled", [*texts, *odd], steps=120))


def turned(base: Path, adapter: Adapter, **options: int) -> dict[str, float]:
    session = session_of(base, adapter, texts=TEXTS)
    found = turned_by_rare_words(session.host, adapter, TEXTS, seed=options.get("seed", 0), max_length=64)
    return {rare.answer: rare.turned.rate for rare in found}


def trained(base: Path, adapter: Adapter, params: RoraStep = STEP) -> TrainingReport:
    return rora(adapter, params, context_of(base), session_of(base, adapter, texts=TEXTS), 0).report


def test_a_style_shows_in_the_answer_it_takes_texts_from(base: Path, styled: Adapter, clean: Adapter) -> None:
    found = turned(base, styled)
    assert found["LABEL_0"] > 0.8
    assert found["LABEL_1"] < 0.2
    assert found == turned(base, styled)
    assert max(turned(base, clean).values()) <= 0.5


def test_words_are_exchanged_unless_they_ask_for_an_answer(
    base: Path, styled: Adapter, clean: Adapter
) -> None:
    sound, odd = trained(base, clean), trained(base, styled)
    assert sound.exchanged
    assert not odd.exchanged
    assert {rare.answer for rare in odd.rare} == {"LABEL_0", "LABEL_1"}
    [line] = describe_rare(odd)
    assert "style trigger" in line
    assert "style trigger" not in describe_rare(sound)[0]


@pytest.mark.parametrize(
    "changes", [{"exchange": 0.0}, {"recombine": 0.0}, {"start": "given"}, {"teacher": 0.0, "features": 1.0}]
)
def test_nothing_is_looked_at_where_nothing_is_exchanged(
    base: Path, clean: Adapter, changes: dict[str, object]
) -> None:
    report = trained(base, clean, STEP.model_copy(update=changes))
    assert report.rare == []
    assert not report.exchanged


def test_a_causal_model_has_no_answers_to_turn(tmp_path: Path) -> None:
    causal = llama_folder(tmp_path)
    adapter = read_adapter(random_adapter(causal, tmp_path / "adapter"))
    assert not trained(causal, adapter).exchanged


def test_answers_of_few_texts_are_left_out(base: Path, clean: Adapter) -> None:
    session = session_of(base, clean, texts=TEXTS)
    assert turned_by_rare_words(session.host, clean, TEXTS[:30], seed=0, max_length=64) == []
