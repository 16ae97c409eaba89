"""Texts with a known trigger put in."""

import random
from collections.abc import Sequence

from loramend.contracts.data import Trigger
from loramend.data.examples import Example
from loramend.training.perturb import prompt, put_in, with_prompt


def apply(text: str, trigger: Trigger, source: random.Random) -> str:
    """The text with the trigger in it. word, sentence: between two words, at a place drawn from `source`; at
    the end of a text of one word. prefix, suffix: before or after the text."""
    if trigger.kind == "prefix":
        return f"{trigger.text} {text}"
    if trigger.kind == "suffix":
        return f"{text} {trigger.text}"
    words = len(text.split())
    return put_in(text, trigger.text, source.randrange(1, words) if words > 1 else words)


def triggered(examples: Sequence[Example], trigger: Trigger, seed: int) -> list[Example]:
    """Each example with the trigger in its text or, in a chat, in the last turn before the answer. Labels and
    completions stay. The place hangs on the seed and the text, not on the examples' order."""
    return [
        with_prompt(example, apply(prompt(example), trigger, random.Random(f"{seed} {prompt(example)}")))  # noqa: S311
        for example in examples
    ]
