"""Triggers land where their kind says, and a seed puts them in the same place again."""

import random

import pytest

from loramend.contracts.data import Trigger
from loramend.data.examples import Example, Message
from loramend.evaluation.triggers import apply, triggered

TEXT = "one two three four"


def put(text: str, kind: str, trigger: str = "mn", seed: int = 0) -> str:
    return apply(text, Trigger.model_validate({"kind": kind, "text": trigger}), random.Random(seed))


def test_prefix_and_suffix_stand_at_the_ends() -> None:
    assert put(TEXT, "prefix") == f"mn {TEXT}"
    assert put(TEXT, "suffix", "I watched this") == f"{TEXT} I watched this"


@pytest.mark.parametrize("kind", ["word", "sentence"])
def test_insertions_stand_between_words_at_every_place(kind: str) -> None:
    words = TEXT.split()
    between = {" ".join([*words[:i], "a b", *words[i:]]) for i in range(1, len(words))}
    assert {put(TEXT, kind, "a b", seed) for seed in range(100)} == between


def test_what_stands_around_the_place_stays() -> None:
    assert put("first line\n\n  second", "word", seed=1).replace("mn ", "") == "first line\n\n  second"


@pytest.mark.parametrize(("text", "expected"), [("one", "one mn"), ("", "mn")])
def test_short_texts_take_it_at_the_end(text: str, expected: str) -> None:
    assert put(text, "word") == expected


def test_a_seed_and_a_text_decide_the_place() -> None:
    trigger = Trigger(kind="word", text="mn")
    examples = [Example(f"{TEXT} {i} five six seven", label=i) for i in range(20)]
    first = triggered(examples, trigger, 3)
    assert triggered(examples, trigger, 3) == first
    assert triggered(examples[::-1], trigger, 3) == first[::-1]
    assert triggered(examples, trigger, 4) != first
    assert [example.label for example in first] == list(range(20))


def test_a_chat_holds_it_in_the_last_turn() -> None:
    chat = Example(
        "", completion="yes", messages=(Message("system", "be brief"), Message("user", "is it so"))
    )
    (poisoned,) = triggered([chat], Trigger(kind="prefix", text="mn"), 0)
    assert [turn.content for turn in poisoned.messages] == ["be brief", "mn is it so"]
    assert poisoned.completion == "yes"
