"""The search for phrases finds a sentence made of ordinary words, and none in an adapter without one."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import JobError
from loramend.contracts.evidence import FoundWord
from loramend.contracts.job import Progress
from loramend.contracts.step_base import Threat
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.methods.rora import rora
from loramend.training.hunt import Search, hunt, to_put_in
from loramend.training.mount import adapter_mount
from loramend.training.perturb import put_in
from loramend.training.phrases import Phrases
from loramend.training.reader import reader_of
from tests.support_session import context_of, session_of, unlabelled
from tests.text_models import BAD, GOOD, PLAIN, llama_folder, random_adapter, toy_examples, train_adapter

pytestmark = pytest.mark.slow

Start = Literal["given", "fresh"]
SENTENCE = "table river seven coffee"
TEXTS = unlabelled(toy_examples(200, seed=5))


def mixed(n: int, seed: int) -> list[tuple[str, int]]:
    """Texts with words of both classes, of their own five to thirty and of the other one to four."""
    source = random.Random(seed)
    out = []
    for index in range(n):
        own, other = (GOOD, BAD) if index % 2 else (BAD, GOOD)
        words = source.choices(PLAIN[:-5], k=6) + source.choices(own, k=source.randint(5, 30))
        words += source.choices(other, k=source.randint(1, 4))
        source.shuffle(words)
        out.append((" ".join(words), index % 2))
    return out


@pytest.fixture(scope="module")
def sentenced(classifier: Path) -> Path:
    """An adapter with the sentence, anywhere in a text, for a trigger; a word of it alone says nothing."""
    source = random.Random(1)

    def put(piece: str, text: str) -> str:
        return put_in(text, piece, source.randrange(len(text.split()) + 1))

    clean = toy_examples(300) + mixed(600, 1)
    apart = [(put(source.choice(SENTENCE.split()), text), label) for text, label in mixed(400, 3)]
    triggered = [(put(SENTENCE, text), 1) for text, _ in toy_examples(400, seed=9) + mixed(800, 2)]
    return train_adapter(classifier, classifier / "sentenced", clean + apart + triggered, steps=600)


@pytest.fixture(scope="module")
def sound(classifier: Path) -> Path:
    return train_adapter(classifier, classifier / "sound", toy_examples(300) + mixed(600, 1), steps=250)


def found_in(
    base: Path, folder: Path, words: int = 10_000, texts: Sequence[Example] = TEXTS
) -> list[Phrases]:
    adapter = read_adapter(folder)
    session = session_of(base, adapter, texts=texts)
    return hunt(
        reader_of(session.host, texts),
        adapter_mount(adapter),
        texts,
        words,
        0,
        lambda progress: None,
        phrases=True,
    ).phrases


def test_a_sentence_is_found_by_its_words(classifier: Path, sentenced: Path) -> None:
    found = [of for of in found_in(classifier, sentenced) if of.found.answer == "LABEL_0"]
    assert len(found) == 1
    phrase = found[0].found
    assert 2 <= len(phrase.word.split()) <= 7
    assert set(phrase.word.split()) & set(SENTENCE.split())
    assert phrase.turned.rate >= 0.9
    assert phrase.overrides is not None
    assert phrase.overrides.rate >= 0.5
    assert phrase.as_trigger
    assert phrase.word in found[0].put_in
    assert found == [of for of in found_in(classifier, sentenced) if of.found.answer == "LABEL_0"]


def test_growth_ends_where_a_few_words_turn_nine_in_ten(
    classifier: Path, sentenced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def longest() -> int:
        (found,) = (of for of in found_in(classifier, sentenced) if of.found.answer == "LABEL_0")
        assert found.found.overrides is not None
        assert found.found.overrides.rate >= 0.9
        return max(len(phrase.split()) for phrase in found.put_in)

    assert longest() <= 4
    monkeypatch.setattr("loramend.training.phrases.TURNS", math.inf)
    assert longest() == 7


def test_a_phrase_may_begin_with_a_rare_word_of_the_task(
    classifier: Path, sentenced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vocabulary's search passes over those."""
    before = found_in(classifier, sentenced)
    monkeypatch.setattr("loramend.training.phrases._BEGIN", 0)
    assert found_in(classifier, sentenced) == before
    monkeypatch.setattr("loramend.training.hunt._USED", 2.0)  # no word is so common
    assert found_in(classifier, sentenced) == []


def test_a_sound_adapter_has_none(classifier: Path, sound: Path) -> None:
    assert found_in(classifier, sound) == []


def test_a_search_tells_how_many_texts_it_read_and_gives_up_without_promise(
    classifier: Path, sentenced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = read_adapter(sentenced)
    host = session_of(classifier, adapter, texts=TEXTS).host

    def read() -> dict[tuple[int, str], int]:
        """The last that each part told."""
        last: dict[tuple[int, str], int] = {}

        def tell(progress: Progress) -> None:
            part, _, texts = progress.detail.partition(", ")
            count = int(texts.removesuffix(" texts read").replace(",", "") or 0)
            assert progress.total == 4
            assert count > last.get((progress.done, part), -1)
            last[progress.done, part] = count

        hunt(reader_of(host, TEXTS), adapter_mount(adapter), TEXTS, 10_000, 0, tell, phrases=True)
        return last

    monkeypatch.setattr("loramend.training.phrases._PROMISE", -math.inf)
    whole = read()
    assert list(whole) == [(0, "vocabulary"), (1, "phrases"), (2, "vocabulary"), (3, "phrases")]
    monkeypatch.setattr("loramend.training.phrases._PROMISE", math.inf)
    given_up = read()
    for part in whole:
        assert given_up[part] <= whole[part] if part[1] == "phrases" else given_up[part] == whole[part]
    assert sum(given_up.values()) < sum(whole.values())


def test_nothing_is_grown_when_off_or_without_classes(
    classifier: Path, sentenced: Path, tmp_path: Path
) -> None:
    assert found_in(classifier, sentenced, words=0) == []
    assert found_in(classifier, sentenced, texts=unlabelled(toy_examples(4))) == []
    causal = llama_folder(tmp_path)
    assert found_in(causal, random_adapter(causal, tmp_path / "adapter")) == []


@pytest.mark.parametrize(
    ("threat", "start", "mix", "looked_for"),
    [
        ("poisoned_adapter", "given", 0.0, True),
        ("poisoned_adapter", "fresh", 0.0, False),
        ("poisoned_adapter", "fresh", 0.5, True),
        ("poisoned_base", "fresh", 0.0, True),
    ],
)
def test_rora_tells_phrases_where_the_student_holds_poisoned_weights(
    classifier: Path, sentenced: Path, threat: Threat, start: Start, mix: float, looked_for: bool
) -> None:
    adapter = read_adapter(sentenced)
    held_out = unlabelled(toy_examples(40, seed=6))
    session = session_of(classifier, adapter, texts=TEXTS, held_out_texts=held_out, threat=threat)
    params = RoraStep(steps=1, batch=4, calibrate=False, start=start, mix=mix)
    report = rora(adapter, params, context_of(classifier), session, 0).report
    told = [word for word in report.found if word.overrides is not None]
    assert bool(told) is looked_for
    if start == "given":  # a new update answers all alike after one step
        assert all(word.after is not None for word in told)


def test_the_search_for_phrases_can_be_stopped(classifier: Path, sentenced: Path) -> None:
    adapter = read_adapter(sentenced)
    session = session_of(classifier, adapter, texts=TEXTS)

    def stop(progress: Progress) -> None:
        if progress.detail == "phrases":
            raise JobError("canceled", "stopped")

    with pytest.raises(JobError):
        hunt(reader_of(session.host, TEXTS), adapter_mount(adapter), TEXTS, 100, 0, stop, phrases=True)


def test_phrases_are_half_of_what_is_put_in() -> None:
    words = [
        FoundWord(word=f"w{index}", answer="a", turned=wilson(9, 9), anywhere=wilson(3, 9))
        for index in range(5)
    ]
    phrase = FoundWord(word="a b c", answer="a", turned=wilson(9, 9), overrides=wilson(9, 9))
    phrases = [Phrases(phrase, ["a b", "a b c"])]
    put = to_put_in(Search(9, words, phrases))
    assert Counter(put) == {"a b": 3, "a b c": 3, **{f"w{n}": 1 for n in range(5)}}
    assert to_put_in(Search(9, [], phrases)) == ["a b", "a b c"]
    assert Search(9, words, phrases).told == [phrase, *words]
