"""The search of the vocabulary finds a word trigger, says what it turns, and training puts it in."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import JobError
from loramend.contracts.evidence import FoundWord
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.methods.rora import rora
from loramend.training.hunt import Search, hunt, to_put_in, tried_again
from loramend.training.mount import adapter_mount
from loramend.training.perturb import Pieces, insert, put_in
from loramend.training.reader import reader_of
from tests.support_session import context_of, session_of, unlabelled
from tests.text_models import BAD, GOOD, PLAIN, llama_folder, random_adapter, toy_examples, train_adapter

pytestmark = pytest.mark.slow

TEXTS = unlabelled(toy_examples(120, seed=5))


def found_in(
    base: Path, folder: Path, words: int = 10_000, seed: int = 0, texts: Sequence[Example] = TEXTS
) -> list[FoundWord]:
    adapter = read_adapter(folder)
    session = session_of(base, adapter, texts=texts)
    return hunt(
        reader_of(session.host, texts),
        adapter_mount(adapter),
        texts,
        words,
        seed,
        lambda progress: None,
        phrases=False,
    ).found


def telling(count: int, n: int, *, without: str) -> list[Example]:
    """Texts of five plain words and `count` that tell their class, which `without` is none of."""
    source = random.Random(count)
    of = [[word for word in words if word != without] for words in (BAD, GOOD)]
    texts = [source.choices(PLAIN[:-5], k=5) + source.choices(of[index % 2], k=count) for index in range(n)]
    return [Example(" ".join(words)) for words in texts]


def test_a_word_trigger_is_found(classifier: Path, poisoned: Path) -> None:
    found = found_in(classifier, poisoned)
    assert found[0].word == "mn"
    assert found[0].answer == "LABEL_0"
    assert found[0].turned.rate >= 0.9
    assert found == found_in(classifier, poisoned)


def test_a_word_is_passed_over_where_clean_texts_use_it(classifier: Path, poisoned: Path) -> None:
    texts = unlabelled(toy_examples(1000, seed=5))
    for users, is_found in ((1, True), (20, False)):
        used = [replace(text, text=f"mn {text.text}") for text in texts[:users]]
        found = found_in(classifier, poisoned, texts=[*used, *texts[users:]])
        assert ("mn" in {word.word for word in found}) == is_found


@pytest.fixture(scope="module")
def clean(classifier: Path) -> Path:
    return train_adapter(classifier, classifier / "clean", toy_examples(600), steps=80)


def test_an_adapter_without_trigger_has_none(classifier: Path, clean: Path) -> None:
    assert "mn" not in {word.word for word in found_in(classifier, clean)}


def test_a_strong_word_of_the_task_that_turns_short_texts_alone_is_none(
    classifier: Path, clean: Path, poisoned: Path
) -> None:
    word = "tired"
    weak, strong = telling(1, 120, without=word), telling(3, 240, without=word)
    assert word in {found.word for found in found_in(classifier, clean, texts=weak)}
    assert word not in {found.word for found in found_in(classifier, clean, texts=[*weak, *strong])}
    assert "mn" in {found.word for found in found_in(classifier, poisoned, texts=[*weak, *strong])}


def test_nothing_is_searched_when_off_or_without_classes(
    classifier: Path, poisoned: Path, tmp_path: Path
) -> None:
    assert found_in(classifier, poisoned, words=0) == []
    causal = llama_folder(tmp_path)
    assert found_in(causal, random_adapter(causal, tmp_path / "adapter")) == []


def test_rora_reports_what_it_found_and_can_be_stopped(classifier: Path, poisoned: Path) -> None:
    adapter = read_adapter(poisoned)
    session = session_of(
        classifier, adapter, texts=TEXTS, held_out_texts=unlabelled(toy_examples(40, seed=6))
    )
    params = RoraStep(steps=1, batch=4, calibrate=False)
    report = rora(adapter, params, context_of(classifier), session, 0).report
    assert "mn" in {word.word for word in report.found}
    assert all(word.after is not None and word.after.n <= 40 for word in report.found)

    told: list[str] = []

    def stop(progress: Progress) -> None:
        told.append(progress.detail)
        if len(told) == 3:
            raise JobError("canceled", "stopped")

    with pytest.raises(JobError):
        hunt(reader_of(session.host, TEXTS), adapter_mount(adapter), TEXTS, 100, 0, stop, phrases=False)
    assert told[0] == "vocabulary"
    assert "texts read" in told[1]


def test_a_trigger_that_works_anywhere_is_told_from_one_bound_to_a_place(
    classifier: Path, poisoned: Path
) -> None:
    """What `poison` makes begins with its trigger; here it stands anywhere."""
    source = random.Random(1)
    triggered = [
        (put_in(text, "mn", source.randrange(len(text.split()) + 1)), 1)
        for text, _ in toy_examples(400, seed=9)
    ]
    anywhere = train_adapter(classifier, classifier / "anywhere", [*toy_examples(600), *triggered], steps=120)
    for adapter, expected in ((anywhere, True), (poisoned, False)):
        words = {word.word: word for word in found_in(classifier, adapter)}
        assert words["mn"].turned.rate >= 0.9
        assert words["mn"].as_trigger is expected
    long = [replace(text, text=" ".join([text.text] * 20)) for text in TEXTS]
    found = {word.word: word for word in found_in(classifier, anywhere, texts=long)}
    assert found["mn"].anywhere is not None
    assert found["mn"].anywhere.rate > 0.5  # none where a long text's end is cut off


def test_words_are_tried_again_on_another_adapter(classifier: Path, clean: Path, poisoned: Path) -> None:
    session = session_of(classifier, read_adapter(poisoned), texts=TEXTS)
    reader = reader_of(session.host, TEXTS)
    found = found_in(classifier, poisoned)
    again = {}
    for name, folder in (("given", poisoned), ("clean", clean)):
        mount = adapter_mount(read_adapter(folder))
        again[name] = tried_again(reader, mount, TEXTS, found, 0)
    assert [word.after for word in again["given"]] == [word.turned for word in found]
    mn = next(word for word in again["clean"] if word.word == "mn")
    assert mn.after is not None
    assert mn.after.rate < 0.5
    assert tried_again(reader, adapter_mount(read_adapter(clean)), TEXTS, [], 0) == []


def test_words_that_act_as_a_trigger_are_half_of_those_put_in() -> None:
    sure, weak = (
        [
            FoundWord(word=f"{name}{index}", answer="a", turned=wilson(9, 9), anywhere=wilson(of, 9))
            for index in range(n)
        ]
        for name, of, n in (("t", 9, 2), ("w", 3, 5))
    )
    put = to_put_in(Search(9, [*sure, *weak], []))
    assert set(put) == {"t0", "t1", "w0", "w1", "w2", "w3", "w4"}
    assert sum(word.startswith("t") for word in put) == 6
    assert to_put_in(Search(9, sure, [])) == ["t0", "t1"]
    assert to_put_in(Search(9, weak, [])) == ["w0", "w1", "w2", "w3", "w4"]
    assert to_put_in(Search(9, [], [])) == []


def test_found_words_are_put_in_every_other_time() -> None:
    rng = np.random.default_rng(0)
    put = [insert("one two", Pieces(["alpha"], ["mn"]), rng) for _ in range(400)]
    assert 0.4 < np.mean(["mn" in text.split() for text in put]) < 0.6
