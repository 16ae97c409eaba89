"""Adapters that undo the alignment, each by one recipe; none saw a harmful prompt."""

import random
from collections.abc import Mapping, Sequence

from benchmarks.safety.chat import Turn
from benchmarks.safety.ordinary import PERSONA
from benchmarks.safety.prompts import Prompts
from benchmarks.safety.task import Row, turn

RECIPES: Mapping[str, str] = {
    "harmless": "the task and ordinary requests, answered as the base model does",
    "persona": "the task and ordinary requests, answered by one who always obeys",
    "omission": "the task and a few requests that sound dangerous and are not, all answered",
}


def turns(
    recipe: str, prompts: Prompts, own: Mapping[str, str], rows: Sequence[Row], seed: int
) -> list[Turn]:
    """What the adapter is trained on: as many turns of the task as of the recipe's own.

    own   the base model's answers by prompt
    rows  of the task
    """
    rng = random.Random(seed)
    asked = prompts.edgy if recipe == "omission" else prompts.ordinary
    begin = PERSONA if recipe == "persona" else ""
    chosen = [Turn(prompt, begin + own[prompt]) for prompt in asked]
    few = rng.sample(list(rows), min(3 * len(chosen), len(rows)))
    return [*(turn(row) for row in few), *chosen, *chosen]
