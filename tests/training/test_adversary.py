"""Soft words: where they stand, that they turn answers, and that training against them removes a trigger
that nothing else looks for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.data.examples import Example
from loramend.methods.rora import rora
from loramend.training.adversary import Adversary
from loramend.training.encode import IGNORED, Encoded
from loramend.training.host import Host, Output
from loramend.training.mount import adapter_mount
from loramend.training.objective import teacher_loss
from tests.support_session import context_of, hosted, session_of, unlabelled
from tests.text_models import (
    bert_folder,
    gpt2_folder,
    llama_folder,
    random_adapter,
    toy_examples,
    vocabulary,
)

pytestmark = pytest.mark.slow

TEXTS = unlabelled(toy_examples(200, seed=5))
STEP = RoraStep(adversary=1.0)


def sought_in(steps: int) -> RoraStep:
    return STEP.model_copy(update={"adversary_steps": steps})


def answered(host: Host, texts: list[Example]) -> tuple[Encoded, Output]:
    batch = host.collate(host.encode(texts, 64))
    with torch.no_grad():
        return batch, host.forward(batch)


@pytest.mark.parametrize("make", [bert_folder, llama_folder, gpt2_folder])
def test_embedded_tokens_read_as_the_tokens_do(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path)
    adapter = random_adapter(folder, tmp_path / "adapter")
    host = hosted(folder, adapter)
    batch, told = answered(host, TEXTS[:6])
    with torch.no_grad():
        again = host.forward(batch, embedded=host.embed(batch.input_ids))
        assert again.logits.equal(told.logits)
        assert host.forward(batch).logits.equal(told.logits)  # nothing is left behind
    assert host.vocabulary == len(vocabulary())


@given(number=st.integers(0, 10_000))
def test_a_text_keeps_its_own_words_in_order(host: Host, number: int) -> None:
    batch, told = answered(host, TEXTS[:6])
    pair, embedded = Adversary(host, sought_in(0), 3).soft(number, batch, told)
    assert pair.plain is batch
    assert pair.read.labels.equal(batch.labels)
    assert embedded.shape[:2] == pair.read.input_ids.shape == pair.read.attention_mask.shape
    own = host.embed(batch.input_ids)
    grown = embedded.shape[1] - batch.input_ids.shape[1]
    assert 0 <= grown <= STEP.adversary_words
    lengths = batch.attention_mask.sum(1)
    assert pair.read.attention_mask.sum(1).equal(lengths + grown)
    for row, length in enumerate(lengths.tolist()):
        read, text = embedded[row, : length + grown], own[row, :length]
        assert read[0].equal(text[0])
        assert read[-1].equal(text[-1])
        if grown:
            strange = [
                at
                for at in range(1, length)
                if read[:at].equal(text[:at]) and read[at + grown :].equal(text[at:])
            ]
            assert strange, "the words stand together, the text around them"
        else:
            assert (read == text).all(dim=1).sum() >= 2


def test_found_words_turn_more_than_random_ones_and_are_no_longer(host: Host) -> None:
    batch, told = answered(host, TEXTS[:32])
    moved = {}
    for steps in (0, 3, 10):
        adversary = Adversary(host, sought_in(steps), 1)
        moved[steps] = 0.0
        for number in range(8):
            pair, embedded = adversary.soft(number, batch, told)
            with torch.no_grad():
                answers = host.forward(pair.read, embedded=embedded)
            moved[steps] += float(teacher_loss(answers, told, pair, 2.0))
            lengths = host.embed(torch.arange(host.vocabulary)).norm(dim=1)
            assert float(embedded.norm(dim=-1).max()) <= 1.001 * float(lengths.max())
    assert moved[0] < 0.5 * moved[3]
    assert moved[3] < moved[10]


def test_the_same_number_finds_the_same_words_and_trains_nothing(host: Host) -> None:
    batch, told = answered(host, TEXTS[:8])
    before = torch.get_rng_state()
    one, again, other = (Adversary(host, STEP, 1).soft(number, batch, told) for number in (4, 4, 5))
    assert torch.get_rng_state().equal(before)
    assert one.embedded.equal(again.embedded)
    assert not (one.embedded.shape == other.embedded.shape and one.embedded.equal(other.embedded))
    assert not one.embedded.requires_grad


def test_a_full_text_gets_words_replaced_instead_of_put_in(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, told = answered(host, TEXTS[:4])
    length = batch.input_ids.shape[1]
    adversary = Adversary(host, STEP, 1)
    assert any(adversary.soft(number, batch, told).embedded.shape[1] > length for number in range(6))
    monkeypatch.setattr(host.tokenizer, "model_max_length", length)
    assert all(adversary.soft(number, batch, told).embedded.shape[1] == length for number in range(6))


def test_what_a_causal_model_learns_stays_as_it_is(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path)
    host = hosted(folder, random_adapter(folder, tmp_path / "adapter"))
    texts = [replace(text, completion="one two") for text in TEXTS[:5]]
    texts.append(Example(text="plain text that is learned whole"))
    batch, told = answered(host, texts)
    for number in range(6):
        pair, embedded = Adversary(host, STEP, 1).soft(number, batch, told)
        for row in range(len(texts)):
            learned = pair.read.labels[row] != IGNORED
            assert pair.read.labels[row][learned].equal(batch.labels[row][batch.labels[row] != IGNORED])
            assert pair.read.input_ids[row][learned].equal(pair.read.labels[row][learned])
            assert embedded[row][learned].equal(host.embed(pair.read.input_ids[row][learned]))


def test_a_trigger_that_nothing_looks_for_is_unlearned(classifier: Path, poisoned: Path) -> None:
    """The given update is trained on, with no search, and nothing of the vocabulary put in."""
    adapter = read_adapter(poisoned)
    triggered = [replace(text, text=f"{text.text} mn") for text in TEXTS]
    kept = {}
    for weight in (0.0, 1.0):
        session = session_of(classifier, adapter, texts=TEXTS)
        params = RoraStep(
            start="given", steps=150, lr=3e-3, hunt=0, insert=0, calibrate=False, adversary=weight
        )
        trained = rora(adapter, params, context_of(classifier), session, 0)
        host = session.host
        with host.mounted(adapter_mount(trained.adapter)):
            plain, turned = (answered(host, texts)[1].logits.argmax(1) for texts in (TEXTS, triggered))
        kept[weight] = float((plain != turned).float().mean())
        with host.mounted(adapter_mount(adapter)):
            assert float((answered(host, TEXTS)[1].logits.argmax(1) == plain).float().mean()) > 0.95
    assert kept[0.0] > 0.3
    assert kept[1.0] < 0.1
