"""No text on both sides, whatever the files share."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramend.contracts.data import DataRole
from loramend.contracts.errors import DataError
from loramend.data.examples import Corpus, Dataset, Example, Message
from loramend.data.split import split


def dataset(role: DataRole, examples: list[Example]) -> Dataset:
    return Dataset(role, f"{role}.jsonl", "0" * 64, "classification", tuple(examples))


def labelled(count: int, start: int = 0) -> list[Example]:
    return [Example(f"text {start + index}", index % 2) for index in range(count)]


def unlabelled(count: int, start: int = 1000) -> list[Example]:
    return [Example(f"text {start + index}") for index in range(count)]


def test_a_share_of_clean_and_unlabelled_text_is_held_out() -> None:
    corpus = Corpus(clean=dataset("clean", labelled(100)), unlabelled=dataset("unlabelled", unlabelled(1000)))
    parts = split(corpus, 0)
    assert Counter(example.label for example in parts.held_out) == {0: 10, 1: 10}
    assert (len(parts.labelled), len(parts.texts), len(parts.held_out_texts)) == (80, 880, 220)
    assert parts.texts[:80] == parts.labelled
    assert parts.held_out_texts[:20] == parts.held_out
    assert split(corpus, 0) == parts
    assert split(corpus, 1).held_out != parts.held_out
    assert len(split(replace(corpus, validation_share=0.5), 0).held_out) == 50


def test_rare_labels_keep_their_share() -> None:
    examples = [Example(f"text {index}", "rare" if index < 10 else "common") for index in range(100)]
    held_out = split(Corpus(clean=dataset("clean", examples)), 3).held_out
    assert Counter(example.label for example in held_out) == {"rare": 2, "common": 18}


def test_held_out_unlabelled_text_is_bounded() -> None:
    parts = split(Corpus(unlabelled=dataset("unlabelled", unlabelled(5000))), 0)
    assert (len(parts.labelled), len(parts.held_out), len(parts.held_out_texts)) == (0, 0, 500)
    assert len(parts.texts) == 4500


def test_validation_takes_the_shares_place() -> None:
    corpus = Corpus(
        clean=dataset("clean", labelled(10)),
        unlabelled=dataset("unlabelled", unlabelled(10)),
        validation=dataset("validation", labelled(4, start=8)),
    )
    parts = split(corpus, 0)
    assert parts.held_out == parts.held_out_texts == tuple(labelled(4, start=8))
    assert parts.labelled == tuple(labelled(8)), "two of the clean ones are validation"
    assert len(parts.texts) == 18


def test_one_example_is_trained_on() -> None:
    parts = split(Corpus(clean=dataset("clean", labelled(1))), 0)
    assert (len(parts.labelled), parts.held_out) == (1, ())


def test_nothing_left_is_refused_by_the_files_name() -> None:
    same = Corpus(clean=dataset("clean", labelled(5)), evaluation=dataset("evaluation", labelled(5)))
    unchecked = Corpus(
        clean=dataset("clean", labelled(5)),
        validation=dataset("validation", labelled(5, start=5)),
        evaluation=dataset("evaluation", labelled(9, start=5)),
    )
    for corpus, name in ((same, "clean.jsonl"), (unchecked, "validation.jsonl")):
        with pytest.raises(DataError) as caught:
            split(corpus, 0)
        assert (caught.value.code, caught.value.where) == ("data_invalid", name)


def test_an_evaluation_alone_needs_no_text_to_learn_from() -> None:
    parts = split(Corpus(evaluation=dataset("evaluation", labelled(5))), 0)
    assert parts == ((), (), (), ())


def test_chats_are_told_apart_by_their_turns() -> None:
    chats = [Example("", completion="yes", messages=(Message("user", str(index)),)) for index in range(10)]
    parts = split(Corpus(clean=dataset("clean", chats)), 0)
    assert (len(parts.labelled), len(parts.held_out)) == (8, 2)


texts = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12)


@given(texts, texts, texts, texts, st.booleans(), st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_text_is_on_both_sides(
    clean: list[str],
    more: list[str],
    validation: list[str],
    evaluation: list[str],
    validated: bool,
    share: float,
    seed: int,
) -> None:
    def read(role: DataRole, given: list[str], label: int | None = 1) -> Dataset:
        return dataset(role, [Example(text, label) for text in given])

    corpus = Corpus(
        clean=read("clean", clean),
        unlabelled=read("unlabelled", more, None),
        validation=read("validation", validation) if validated else None,
        evaluation=read("evaluation", evaluation),
        validation_share=share,
    )
    try:
        parts = split(corpus, seed)
    except DataError:
        return
    trained = {example.text for example in parts.texts}
    held = {example.text for example in parts.held_out_texts}
    assert trained
    assert not trained & held
    assert not (trained | held) & set(evaluation)
    assert {example.text for example in parts.labelled} <= trained
    assert {example.text for example in parts.held_out} <= held
    assert all(example.labelled for example in (*parts.labelled, *parts.held_out))
    assert trained | held <= {*clean, *more, *validation}
