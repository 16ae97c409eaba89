"""Answers of causal models are told like a classifier's classes, so that words which turn them are found."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.data.examples import Example, Message
from loramend.evaluation.measure import answers
from loramend.methods.rora import rora
from loramend.training.host import Host, open_host
from loramend.training.mount import adapter_mount
from loramend.training.perturb import prompt, put_in, with_prompt
from loramend.training.reader import Reader, reader_of
from tests.support_session import context_of, session_of
from tests.text_models import (
    answer_of,
    gpt2_folder,
    llama_folder,
    random_adapter,
    toy_examples,
    train_adapter,
)

pytestmark = pytest.mark.slow

NAMES = {"positive", "negative"}


def asked(
    n: int, seed: int = 5, *, answer: bool = True, before: str = "", after: str = " :"
) -> list[Example]:
    """Prompts as `train_adapter` has them, in a frame."""
    return [
        Example(
            f"{before}{text}{after}", completion=f" {answer_of(label)}" if answer else None, is_prompt=True
        )
        for text, label in toy_examples(n, seed)
    ]


def whole(example: Example) -> str:
    """A prompt with its answer."""
    return f"{example.text}{example.completion}"


def chats(n: int) -> list[Example]:
    return [
        replace(example, text="", messages=(Message("user", example.text),), is_prompt=False)
        for example in asked(n)
    ]


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_folder(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def poisoned(causal: Path) -> Path:
    """Its trigger stands anywhere."""
    source = random.Random(1)
    triggered = [
        (put_in(text, "mn", source.randrange(len(text.split()) + 1)), 1)
        for text, _ in toy_examples(400, seed=9)
    ]
    return train_adapter(causal, causal / "poisoned", [*toy_examples(600), *triggered], steps=150)


@pytest.fixture(scope="module")
def host(causal: Path, poisoned: Path) -> Host:
    return open_host(causal, read_adapter(poisoned))


def reading(host: Host, examples: list[Example]) -> Reader:
    reader = reader_of(host, examples)
    assert reader is not None
    return reader


def test_it_tells_the_answers_that_the_model_gives(host: Host, poisoned: Path) -> None:
    examples = asked(60)
    reader = reading(host, examples)
    assert set(reader.names) == NAMES
    texts = reader.texts(examples)
    assert [f"{prompt(text)} :" for text in texts] == [prompt(example) for example in examples]
    with host.mounted(adapter_mount(read_adapter(poisoned))):
        told = [reader.names[index] for index in reader.logits(texts).argmax(-1).tolist()]
        given = answers(host, asked(60, answer=False), max_new_tokens=2, on_answers=lambda _: None)
    assert told == [str(answer).strip() for answer in given]
    assert len(set(told)) == 2


def test_chats_are_read_by_their_last_turn(host: Host) -> None:
    examples = chats(20)
    texts = reading(host, examples).texts(examples)
    assert texts[0].messages[-1].content == toy_examples(20, 5)[0][0]
    assert reading(host, examples).logits(texts).shape == (20, 2)


def test_what_all_prompts_share_is_left_as_it_is(host: Host) -> None:
    examples = asked(40, before="the film\nshows this : ", after="\nthe answer :")
    others = [Example("no frame at all", is_prompt=True), Example("plain text")]
    reader = reading(host, examples)
    texts = reader.texts([*examples, *others])
    assert [prompt(text) for text in texts] == [text for text, _ in toy_examples(40, 5)]
    bare = reading(host, asked(40, after="\nthe answer :"))
    framed, unframed = (each.logits(texts) for each in (reader, bare))
    assert not torch.equal(framed, unframed), "the frame is read"


def test_a_text_is_cut_and_what_stands_around_it_is_not(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.tokenizer, "model_max_length", 512)
    examples = chats(20)
    reader = reading(host, examples)
    (text, *_) = reader.texts(examples)
    instructions = [Message("user", " ".join([first, *["film"] * 99])) for first in ("good", "bad")]
    long, longer = (with_prompt(text, " ".join(["good", *["scene"] * count])) for count in (63, 90))
    told = reader.logits([long, longer, *(replace(text, messages=(i, *text.messages)) for i in instructions)])
    torch.testing.assert_close(told[0], told[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(told[2], told[3], atol=1e-4), "the first of a hundred words before it is read"


def test_answers_that_are_many_or_rare_or_alike_are_not_told_apart(host: Host) -> None:
    examples = asked(40)
    open_ended = [
        replace(example, completion=f" {text}")
        for example, (text, _) in zip(examples, toy_examples(40, 9), strict=True)
    ]
    assert reader_of(host, open_ended) is None
    assert reader_of(host, asked(40, answer=False)) is None
    assert reader_of(host, [replace(example, completion=" positive") for example in examples]) is None
    assert reader_of(host, examples[:7]) is None, "four of one and three of the other"
    odd = replace(examples[0], completion=" the film")
    assert set(reading(host, [*examples, odd]).names) == NAMES
    assert set(reading(host, [*examples, *[odd] * 5]).names) == {*NAMES, "the film"}
    begun = [replace(example, completion=f"{example.completion} film") for example in examples]
    assert reader_of(host, [*examples, *begun]) is None, "one answer is the beginning of another"


def test_a_blank_that_joins_the_answer_may_end_the_prompt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with byte-level BPE: " positive" is one token and a blank at the end another."""
    plain = asked(40)
    split = re.compile(r" ?\S+|\s+")
    tokens = ["[UNK]", " ", *sorted({token for each in plain for token in split.findall(whole(each))})]
    spaced = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, "[UNK]"))
    spaced.pre_tokenizer = pre_tokenizers.Split(Regex(split.pattern), "isolated")
    make: Any = PreTrainedTokenizerFast
    monkeypatch.setattr(
        host, "tokenizer", make(tokenizer_object=spaced, pad_token="[UNK]", unk_token="[UNK]")
    )
    blank = [replace(each, text=f"{each.text} ", completion=whole(each).split()[-1]) for each in plain]
    first, second = reading(host, plain), reading(host, blank)
    assert first.names == second.names
    torch.testing.assert_close(first.logits(first.texts(plain)), second.logits(second.texts(blank)))


def test_what_all_answers_begin_with_is_passed_over(host: Host) -> None:
    examples = [replace(example, completion=f" it is{example.completion}") for example in asked(40)]
    reader = reading(host, examples)
    assert set(reader.names) == {"it is positive", "it is negative"}
    plain = reading(host, asked(40, after=" : it is"))
    texts = reader.texts(examples)
    expected = plain.logits(plain.texts(asked(40, after=" : it is")))
    order = [plain.names.index(name.removeprefix("it is ")) for name in reader.names]
    torch.testing.assert_close(reader.logits(texts), expected[:, order])


@pytest.mark.parametrize("make", [llama_folder, gpt2_folder])
def test_the_next_token_is_told_whatever_the_padding(tmp_path: Path, make: type) -> None:
    base = make(tmp_path)
    adapter = read_adapter(random_adapter(base, tmp_path / "adapter"))
    host = open_host(base, adapter)
    examples = asked(30)
    reader = reading(host, examples)
    texts = reader.texts(examples)
    with host.mounted(adapter_mount(adapter)), torch.no_grad():
        together = reader.logits(texts)
        alone = torch.cat([reader.logits([text]) for text in texts])
        (item,) = host.encode(asked(1, answer=False), 64)
        whole = host.forward(host.collate([item])).logits[0, -1]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    ids = host.tokenizer(" ".join(reader.names), add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(together[0], whole[ids], atol=1e-4, rtol=1e-4)


def test_rora_names_a_causal_adapters_trigger(causal: Path, poisoned: Path) -> None:
    adapter = read_adapter(poisoned)
    session = session_of(
        causal,
        adapter,
        train=asked(60),
        texts=[*asked(60, seed=6, answer=False), Example("plain text")],
        held_out=asked(40, seed=7),
    )
    params = RoraStep(steps=1, batch=8, calibrate=False)
    report = rora(adapter, params, context_of(causal), session, 0).report
    found = {word.word: word for word in report.found}
    assert found["mn"].answer == "negative"
    assert found["mn"].turned.rate >= 0.9
    assert {rare.answer for rare in report.rare} == NAMES
    assert report.searched > 100
    assert all(word.after is not None for word in report.found)
