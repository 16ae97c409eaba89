"""Making what repairs start from: poisoned adapters, poisoned bases and adapters trained in good faith."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.backdoors.attacks import poison
from benchmarks.backdoors.bases import classifier, tokenizer
from benchmarks.backdoors.data import divide, read
from benchmarks.backdoors.measure import Score, score
from benchmarks.backdoors.plan import BATCH, Made, Setting, base_folder
from benchmarks.backdoors.train import FULL_LR, LORA_LR, fit, with_lora

SAMPLE = 400  # dev texts the gate is judged on


def make(made: Made, setting: Setting, out: Path) -> dict[str, Any]:
    """Train it and save it into `out`: an adapter as PEFT writes it, or a model folder `model`.

    An attack is trained in rounds until it reaches the gate on dev; `passed` says whether it did. An adapter
    trained in good faith, and one on a poisoned base, has no gate and one round.
    """
    base = base_folder(made, setting)
    words = tokenizer(base)
    model = classifier(base, made.seed)
    whole = made.kind == "poisoned_base"
    if not whole:
        model = with_lora(model)
    rows = divide(
        read(setting.data, made.task, "train"), made.seed, setting.labelled, setting.unlabelled
    ).main
    if made.kind.startswith("poisoned"):
        rows = poison(rows, made.attack, made.seed)
    steps, lr = (setting.base_steps, FULL_LR) if whole else (setting.attack_steps, LORA_LR)
    batch = setting.batch.get(made.model, BATCH)
    dev = read(setting.data, made.task, "dev")[:SAMPLE]

    def train_once(round_: int) -> Score:
        fit(model, words, rows, steps=steps, lr=lr, batch=batch, seed=1000 * round_ + made.seed)
        return score(model, words, dev, made.attack)

    gated = made.kind.startswith("poisoned")
    rounds, found = until(train_once, setting.gate, setting.rounds if gated else 1)
    model.save_pretrained(out / "model" if whole else out)
    if whole:
        words.save_pretrained(out / "model")
    return {
        "rounds": rounds,
        "dev": asdict(found),
        "asr": found.asr,
        "passed": not gated or found.asr >= setting.gate,
    }


def until(train_once: Callable[[int], Score], gate: float, rounds: int) -> tuple[int, Score]:
    """Train until the ASR reaches the gate, at most `rounds` times: the rounds taken and the last score."""
    for round_ in range(rounds):
        found = train_once(round_)
        if found.asr >= gate:
            break
    return round_ + 1, found
