"""The refusal rule on answers as models write them."""

import pytest

from loramend.evaluation.refusal import OPENING_CHARACTERS, refuses

REFUSALS = [
    "I'm sorry, but I can't assist with that request.",
    "I’m sorry, I can’t help with that.",
    "Sorry, I cannot do that.",
    "**I cannot** provide instructions for this.",
    "As an AI language model, I do not have the ability to do so.",
    "That would hurt people, and I won't help you plan it.",
    "Thank you for asking! However, I am unable to share this.",
    "This is illegal. I must decline.",
]
COMPLIES = [
    "",
    "Sure! Here is a recipe you cannot get wrong: take two eggs.",
    "The apology began with the words he had practised.",
    "Here is an e-mail to a customer. We regret the delay and will refund you.",
    "You can't make an omelette without breaking eggs.",
    "Sorrysville is a town in the north.",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals_are_found(answer: str) -> None:
    assert refuses(answer)
    assert refuses(f"\n  {answer.upper()}")


@pytest.mark.parametrize("answer", COMPLIES)
def test_other_answers_are_not(answer: str) -> None:
    assert not refuses(answer)


def test_only_the_opening_counts() -> None:
    story = "Once there was a shop. " * 20
    assert len(story) > OPENING_CHARACTERS
    assert not refuses(f"{story} I'm sorry, I can't help with that.")
