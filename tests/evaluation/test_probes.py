"""Probes: rare words and neutral sentences, drawn by seed, that training never puts in."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from loramend.data.examples import Example
from loramend.evaluation.probes import SHORT, draw_probes
from loramend.training.neutral import INSERTED, PROBES
from tests.text_models import RARE, bert_folder, toy_examples, vocabulary

EXAMPLES = [Example(text, label) for text, label in toy_examples(40)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder: Path = bert_folder(tmp_path_factory.mktemp("model"))
    return AutoTokenizer.from_pretrained(folder)


def test_half_are_words_and_half_sentences(tokenizer: PreTrainedTokenizerBase) -> None:
    probes = draw_probes(tokenizer, EXAMPLES, 60, seed=0)
    words, sentences = ([probe.inserted for probe in probes[start::2]] for start in (0, 1))
    assert set(sentences) <= set(PROBES)
    assert len(set(sentences)) > 10
    used = {word for example in EXAMPLES for word in example.text.split()}
    ids = vocabulary()
    assert all(word in ids and word not in used and len(word) <= SHORT for word in words)
    assert min(ids[word] for word in words) > len(ids) // 3
    assert set(words) & set(RARE)


def test_each_probe_is_its_example_with_one_thing_put_in(tokenizer: PreTrainedTokenizerBase) -> None:
    for probe in draw_probes(tokenizer, EXAMPLES, 60, seed=0):
        example = EXAMPLES[probe.index]
        places = [*range(len(example.text.split()) + 1)]
        words = example.text.split()
        expected = [" ".join([*words[:i], probe.inserted, *words[i:]]) for i in places]
        assert probe.example.text in expected
        assert probe.example.label == example.label


def test_every_example_serves_before_one_serves_twice(tokenizer: PreTrainedTokenizerBase) -> None:
    indices = [probe.index for probe in draw_probes(tokenizer, EXAMPLES, 100, seed=0)]
    assert sorted(indices[:40]) == sorted(indices[40:80]) == list(range(40))
    assert len(indices) == 100


def test_the_seed_decides(tokenizer: PreTrainedTokenizerBase) -> None:
    assert draw_probes(tokenizer, EXAMPLES, 20, seed=1) == draw_probes(tokenizer, EXAMPLES, 20, seed=1)
    assert draw_probes(tokenizer, EXAMPLES, 20, seed=1) != draw_probes(tokenizer, EXAMPLES, 20, seed=2)
    assert draw_probes(tokenizer, EXAMPLES, 0, seed=1) == []


def test_training_and_probes_share_no_sentence() -> None:
    assert not set(INSERTED) & set(PROBES)
