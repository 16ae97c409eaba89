"""Examples as tokens, labels as classes, batches as tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from loramend.contracts.errors import DataError
from loramend.data.examples import Dataset, Example, Message
from loramend.training.encode import (
    IGNORED,
    Item,
    Labels,
    batches,
    check_examples,
    collate,
    encode,
    encode_prompts,
)
from loramend.training.load import Task
from tests.text_models import bert_folder, llama_folder, vocabulary

LABELS = Labels(2, {"bad": 0, "good": 1})
WORDS = {index: word for word, index in vocabulary().items()}
Tokenizers = Mapping[str, Any]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    tmp = tmp_path_factory.mktemp("tokenizers")
    (tmp / "plain").mkdir()
    folders = {
        "bert": bert_folder(tmp),
        "llama": llama_folder(tmp),
        "unchatty": llama_folder(tmp / "plain", chat=False),
    }
    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in folders.items()}


def words(ids: tuple[int, ...]) -> str:
    return " ".join(WORDS[index] for index in ids)


def test_classified_texts(tokenizers: Tokenizers) -> None:
    examples = [
        Example("a good film", "good"),
        Example("a dull film", 0),
        Example("the film", "1"),
        Example("it"),
    ]
    items = encode(tokenizers["bert"], examples, "classification", 64, LABELS)
    assert [words(item.ids) for item in items][:2] == ["[CLS] a good film [SEP]", "[CLS] a dull film [SEP]"]
    assert [item.label for item in items] == [1, 0, 1, None]
    batch = collate(items, 0)
    assert batch.labels.tolist() == [1, 0, 1, IGNORED]
    assert batch.attention_mask.sum(1).tolist() == [5, 5, 4, 3]
    assert batch.input_ids[3, 3:].tolist() == [0, 0]


def test_classified_text_is_cut_at_its_end(tokenizers: Tokenizers) -> None:
    (item,) = encode(tokenizers["bert"], [Example("one two " * 200)], "classification", 16, LABELS)
    assert len(item.ids) == 16
    assert words(item.ids).startswith("[CLS] one [UNK]")
    assert words(item.ids).endswith("[SEP]")
    (item,) = encode(tokenizers["bert"], [Example("one two " * 200)], "classification", 9999, LABELS)
    assert len(item.ids) == 64  # all the positions there are


@pytest.mark.parametrize("label", ["great", 2, -1, "2", ""])
def test_unknown_labels_are_refused(tokenizers: Tokenizers, label: int | str) -> None:
    with pytest.raises(DataError, match=r"0 to 1, called bad, good") as raised:
        encode(tokenizers["bert"], [Example("x", 1), Example("x", label)], "classification", 64, LABELS)
    assert raised.value.code == "data_invalid"
    assert raised.value.where == "example 2"


def test_wrong_kind_of_example_names_its_line() -> None:
    def dataset(*examples: Example) -> Dataset:
        return Dataset("clean", "data.jsonl", "0" * 64, "text", examples)

    check_examples(dataset(Example("x", 1), Example("y")), "classification", LABELS)
    check_examples(dataset(Example("x", None, "y"), Example("z")), "causal", None)
    cases: list[tuple[Task, Labels | None, Example]] = [
        ("classification", LABELS, Example("x", None, "y")),
        ("classification", LABELS, Example("x", 7)),
        ("causal", None, Example("x", 1)),
    ]
    for task, labels, example in cases:
        with pytest.raises(DataError) as raised:
            check_examples(dataset(Example("x"), example), task, labels)
        assert raised.value.where == "data.jsonl:2"


def test_only_the_completion_is_learned(tokenizers: Tokenizers) -> None:
    (item,) = encode(tokenizers["llama"], [Example("the film :", None, " positive")], "causal", 64)
    assert words(item.ids) == "<s> the film : positive </s>"
    assert item.answer == 4
    batch = collate([item, Item((1, 2), answer=0)], 0)
    assert batch.labels[0].tolist() == [IGNORED] * 4 + list(item.ids[4:])
    assert batch.labels[1].tolist() == [1, 2] + [IGNORED] * 4


def test_plain_text_is_learned_whole_and_a_prompt_not_at_all(tokenizers: Tokenizers) -> None:
    (plain,) = encode(tokenizers["llama"], [Example("the film")], "causal", 64)
    assert (words(plain.ids), plain.answer) == ("<s> the film", 0)
    chat = Example("", messages=(Message("user", "the film"),))
    (prompt,) = encode(tokenizers["llama"], [chat], "causal", 64)
    (waiting,) = encode(tokenizers["llama"], [Example("the film", is_prompt=True)], "causal", 64)
    assert (waiting.ids, waiting.answer) == (plain.ids, len(plain.ids))
    assert prompt.answer == len(prompt.ids)
    assert bool((collate([prompt], 0).labels == IGNORED).all())


def test_chat_follows_the_template(tokenizers: Tokenizers) -> None:
    turns = (Message("user", "the film"), Message("assistant", "yes"), Message("user", "and it"))
    (item,) = encode(tokenizers["llama"], [Example("", None, "no", turns)], "causal", 64)
    assert words(item.ids) == "<|user|> the film <|assistant|> yes </s> <|user|> and it <|assistant|> no </s>"
    assert words(item.ids[item.answer :]) == "no </s>"
    (prompt,) = encode_prompts(tokenizers["llama"], [Example("", None, "no", turns)], 64)
    assert prompt.ids == item.ids[: item.answer]


def test_chat_without_a_template_is_refused(tokenizers: Tokenizers) -> None:
    with pytest.raises(DataError, match="no chat template") as raised:
        encode(tokenizers["unchatty"], [Example("", None, "no", (Message("user", "x"),))], "causal", 64)
    assert raised.value.code == "data_invalid"


def test_what_the_template_refuses_is_bad_data(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama_folder(tmp_path))
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="roles must alternate"):
        encode(tokenizer, [Example("", None, "no", (Message("user", "x"),))], "causal", 64)


def test_text_without_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama_folder(tmp_path))
    tokenizer.chat_template = " "
    with pytest.raises(DataError, match="no tokens"):
        encode(tokenizer, [Example("", messages=(Message("user", "the film"),))], "causal", 64)


def test_a_long_prompt_loses_its_beginning(tokenizers: Tokenizers) -> None:
    example = Example("film " * 50 + "the end :", None, " positive")
    (item,) = encode(tokenizers["llama"], [example], "causal", 8)
    assert words(item.ids) == "<s> film film the end : positive </s>"
    assert words(item.ids[item.answer :]) == "positive </s>"
    (item,) = encode(tokenizers["llama"], [Example("the", None, " film" * 50)], "causal", 8)
    assert len(item.ids) == 8
    assert item.answer == 1
    (prompt,) = encode_prompts(tokenizers["llama"], [example], 5)
    assert words(prompt.ids) == "<s> film the end :"


def test_padding_side() -> None:
    items = [Item((5, 6, 7), answer=1), Item((8,), answer=0)]
    left = collate(items, 9, "left")
    assert left.input_ids.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert left.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert left.labels.tolist() == [[IGNORED, 6, 7], [IGNORED, IGNORED, 8]]


@given(
    lengths=st.lists(st.integers(1, 30), max_size=80),
    size=st.integers(1, 7),
    seed=st.none() | st.integers(0, 99),
)
def test_batches_hold_each_item_once(lengths: list[int], size: int, seed: int | None) -> None:
    items = [Item(tuple(range(length))) for length in lengths]

    def drawn() -> list[list[int]]:
        source = None if seed is None else torch.Generator().manual_seed(seed)
        return list(batches(items, size, source))

    found = drawn()
    assert sorted(index for batch in found for index in batch) == list(range(len(items)))
    assert all(len(batch) <= size for batch in found)
    assert found == drawn()
    if seed is None:
        ordered = [lengths[index] for batch in found for index in batch]
        assert ordered == sorted(lengths, reverse=True)
