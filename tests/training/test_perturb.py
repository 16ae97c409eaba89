"""Words put in, and texts made of pieces."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from loramend.data.examples import Example, Message
from loramend.training.neutral import INSERTED, PROBES
from loramend.training.perturb import (
    Pieces,
    as_continuation,
    common_words,
    exchange,
    insert,
    prompt,
    put_in,
    rare_words,
    recombine,
    unused_words,
    whole_words,
    with_prompt,
)
from tests.text_models import RARE, bert_folder, llama_folder, toy_examples

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12)
SEEDS = st.integers(0, 2**32)


def rest_of(longer: str, shorter: str) -> list[str] | None:
    """The words of `longer` that are not `shorter`'s, if those are all there and in order."""
    left, rest = shorter.split(), []
    for word in longer.split():
        if left and word == left[0]:
            left.pop(0)
        else:
            rest.append(word)
    return None if left else rest


def test_halves_share_no_sentence() -> None:
    assert not set(INSERTED) & set(PROBES)
    assert len(set(INSERTED)) == len(INSERTED) >= 30
    assert len(set(PROBES)) == len(PROBES) >= 30


@given(TEXTS, SEEDS)
def test_insert_keeps_the_text_in_order(words: list[str], seed: int) -> None:
    text = " ".join(words)
    longer = insert(text, Pieces(["mn", "cf"]), np.random.default_rng(seed))
    rest = rest_of(longer, text)
    assert rest
    sentences = [sentence.split() for sentence in INSERTED]
    assert rest in sentences or (len(rest) <= 3 and set(rest) <= {"mn", "cf"})


@given(SEEDS)
def test_a_span_of_a_clean_text_is_put_in_whole(seed: int) -> None:
    source = "a b c d e f g h i j"
    rng = np.random.default_rng(seed)
    longer = insert("XX YY", Pieces(texts=[Example(source)]), rng)
    rest = " ".join(word for word in longer.split() if word not in ("XX", "YY"))
    assert rest in INSERTED or (rest in source and 3 <= len(rest.split()) <= 7)
    assert rest in longer


def test_put_in_keeps_white_space() -> None:
    assert put_in("one\n\n  two three", "X", 1) == "one\n\n  X two three"
    assert put_in("one", "X", 5) == "one X"
    assert put_in("", "X", 0) == "X"


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=5), SEEDS)
def test_recombined_words_are_all_from_the_texts(texts: list[list[str]], seed: int) -> None:
    examples = [Example(" ".join(words), 1) for words in texts]
    new = recombine(examples, np.random.default_rng(seed))
    assert new.label is None
    assert new.text
    assert set(new.text.split()) <= {word for words in texts for word in words}


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=5), SEEDS)
def test_exchanged_words_stand_where_others_stood(texts: list[list[str]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for words in texts:
        changed = exchange(" ".join(words), ["XX"], 0.5, rng).split()
        assert len(changed) == len(words)
        assert all(new in ("XX", old) for new, old in zip(changed, words, strict=True))
        assert exchange(" ".join(words), ["XX"], 0.0, rng).split() == words
        assert set(exchange(" ".join(words), ["XX"], 1.0, rng).split()) == {"XX"}


@given(TEXTS, SEEDS)
def test_only_common_words_make_way_for_odd_ones(words: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = " ".join(words)
    changed = exchange(text, ["XX"], 1.0, rng, {"alpha", "beta"}).split()
    assert changed == ["XX" if word in ("alpha", "beta") else word for word in words]
    pieces = Pieces(["mn"], odd=["XX"], common={"alpha", "beta"})
    for _ in range(4):
        other = insert(text, pieces, rng).split()
        exchanged = len(other) == len(words) and all(
            new == old or (new == "XX" and old in pieces.common)
            for new, old in zip(other, words, strict=True)
        )
        assert exchanged or ("XX" not in other and rest_of(" ".join(other), text))


def test_odd_words_are_taken_two_times_in_five() -> None:
    rng = np.random.default_rng(0)
    pieces = Pieces(["mn"], odd=["XX"], common={"alpha"})
    taken = sum("XX" in insert("alpha " * 20, pieces, rng).split() for _ in range(400))
    assert 130 < taken < 190


def test_common_words_are_letters_alone_and_few() -> None:
    texts = [Example(f"The film, the film : {number} word{'abc'[number % 3]} the") for number in range(9)]
    assert common_words(texts) == {"the", "film", "worda", "wordb", "wordc"}
    many = [Example(" ".join(f"{'x' * length}" for length in range(1, 200)))]
    assert len(common_words(many)) == 60


def test_a_chats_last_turn_is_its_prompt() -> None:
    chat = Example("", messages=(Message("system", "be brief"), Message("user", "ask")), completion="yes")
    changed = with_prompt(chat, "ask again")
    assert prompt(changed) == "ask again"
    assert changed.messages[0] == chat.messages[0]
    assert changed.completion == "yes"


@given(TEXTS, SEEDS)
def test_a_continuation_is_the_same_text(words: list[str], seed: int) -> None:
    text = "  ".join(words)
    cut = as_continuation(Example(text), np.random.default_rng(seed))
    assert cut.text + (cut.completion or "") == text
    if len(words) > 1:
        assert cut.completion is not None
        assert cut.completion.strip()
    for asking in (Example(text, is_prompt=True), Example("", messages=(Message("user", text),))):
        assert as_continuation(asking, np.random.default_rng(seed)) == asking


@pytest.mark.parametrize("folder", [bert_folder, llama_folder])
def test_unused_words_are_the_vocabularys_but_no_text_holds_them(
    folder: Callable[[Path], Path], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder(tmp_path))
    examples = [Example(text) for text, _ in toy_examples(2000)]
    assert set(RARE) <= set(unused_words(tokenizer, examples))
    assert not {"great", "awful", "the"} & set(unused_words(tokenizer, examples))
    assert "[PAD]" not in whole_words(tokenizer)
    assert set(RARE) <= set(rare_words(tokenizer, examples)) < set(unused_words(tokenizer, examples))


def test_word_beginnings_are_told_from_word_pieces() -> None:
    class WordPiece:
        all_special_tokens = ("[CLS]",)

        def get_vocab(self) -> dict[str, int]:
            return {"[CLS]": 0, "ing": 3, "##ed": 1, "walk": 2, "x": 4, "3d": 5, "12": 6}

    class Bpe(WordPiece):
        def get_vocab(self) -> dict[str, int]:
            return {"Ġwalk": 2, "ing": 1, "ĠTalk": 0}

    pieces: Any = WordPiece()
    bytes_: Any = Bpe()
    assert whole_words(pieces) == ["walk", "ing", "3d"]
    assert whole_words(bytes_) == ["Talk", "walk"]
