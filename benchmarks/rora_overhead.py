"""What RoRA's parts cost a training step, beside plain PEFT training of the same update.

Every repeat times these in turn, in one process, over texts of one length and with the model's own dropout
off, so that all do the same work but for the part in question:

    peft     get_peft_model, cross entropy, AdamW: a loop of a dozen lines
    loop     the rora step with every part off
    dropout  … with dropout 0.1 on the frozen path's output
    omega    … with Ω, k = 32
    both     … with both

A run's figure is the median over its steps but the first few. Printed are the medians over repeats, and the
ratios within each repeat, median and range. The base's singular vectors are found before the first step and
are not timed; on disk they serve the next repair of the same base too.

    python -m benchmarks.rora_overhead                       MiniLM-L6, batch 32 of 24 words
    python -m benchmarks.rora_overhead --model FOLDER --threads 2
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.backdoors.bases import classifier, minilm, quiet, tokenizer
from benchmarks.backdoors.data import Row, dataset
from benchmarks.backdoors.train import LORA_LR, encode, with_lora
from loramend.adapter.read import read_adapter
from loramend.contracts.data import EvaluationSpec
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.job import Progress
from loramend.data.examples import Corpus
from loramend.reference.open import open_references
from loramend.repair import repair

LIMIT = 1.10  # of plain PEFT's step
SKIPPED = 3  # steps before a run's timing
OFF: dict[str, Any] = {
    "teacher": 0.0,
    "features": 0.0,
    "recombine": 0.0,
    "insert": 0.0,
    "dropout": 0.0,
    "penalty": 0.0,
    "ratio": None,
    "calibrate": False,
    "head": "train",
    "amp": "off",  # as the loop it is set beside
    "checkpoint_every": 1_000_000,
}
PARTS: dict[str, dict[str, Any]] = {
    "loop": {},
    "dropout": {"dropout": 0.1},
    "omega": {"penalty": 10.0, "k": 32},
    "both": {"dropout": 0.1, "penalty": 10.0, "k": 32},
}


class EnoughError(Exception):
    """Raised by the watcher when it has timed the steps it wants."""


def prepare(model: Path, work: Path) -> tuple[Path, Path]:
    """A copy of the model with its own dropout off, and a new adapter for it: their folders."""
    base, adapter = work / "base", work / "adapter"
    shutil.copytree(model, base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {key: 0.0 for key, value in config.items() if "dropout" in key and isinstance(value, float)}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with_lora(classifier(base, 0)).save_pretrained(adapter)
    return base, adapter


def texts(model: Path, words: int, count: int) -> list[Row]:
    """Texts of that many words, each one token, with classes in turn."""
    vocabulary = AutoTokenizer.from_pretrained(model).get_vocab()
    known = sorted(word for word in vocabulary if word.isalpha() and word.isascii() and len(word) > 2)
    rng = random.Random(0)
    return [Row(" ".join(rng.choices(known, k=words)), index % 2) for index in range(count)]


def peft(base: Path, rows: Sequence[Row], batch: int, steps: int) -> float:
    """Median seconds a step of plain PEFT training."""
    words, model = tokenizer(base), with_lora(classifier(base, 0))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LORA_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    model.train()
    inputs = encode(words, [row.text for row in rows])
    labels = torch.tensor([row.label for row in rows])
    rng, seconds = random.Random(0), []
    for _ in range(steps):
        start = time.perf_counter()
        chosen = rng.sample(range(len(rows)), batch)
        out = model(**{name: tensor[chosen] for name, tensor in inputs.items()})
        loss: Any = torch.nn.functional.cross_entropy(out.logits, labels[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[SKIPPED:])


def rora(base: Path, adapter: Path, rows: Sequence[Row], cache: Path, step: RoraStep, steps: int) -> float:
    """Median seconds a step of the library's training, as its progress tells the time."""
    ticks: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.phase == "train":
            ticks.append(time.perf_counter())
            if len(ticks) > steps:
                raise EnoughError

    corpus = Corpus(
        clean=dataset("clean", "timing", rows),
        evaluation=dataset("evaluation", "timing", rows[:8]),
        validation_share=0.0,
    )
    with open_references(base, None, cache_dir=cache) as references, suppress(EnoughError):
        repair(
            read_adapter(adapter),
            [step],
            references,
            threat="poisoned_base",
            corpus=corpus,
            evaluation=EvaluationSpec(probes=0, controls=False),
            model=base,
            on_progress=watch,
        )
    return statistics.median(b - a for a, b in zip(ticks[SKIPPED:], ticks[SKIPPED + 1 :], strict=False))


def compare(model: Path, work: Path, *, repeats: int, steps: int, batch: int, words: int) -> bool:
    """Time all in turn, print them, and tell whether the parts stay within the limit."""
    base, adapter = prepare(model, work)
    rows = texts(base, words, 8 * batch)
    runs: dict[str, Callable[[], float]] = {"peft": partial(peft, base, rows, batch, steps)}
    for name, changes in PARTS.items():
        step = RoraStep(**{**OFF, **changes, "batch": batch, "steps": steps + 1, "warmup": 0.0})
        runs[name] = partial(rora, base, adapter, rows, work / "cache", step, steps)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, timed in runs.items():
            seconds[name].append(timed())
    print(
        f"{repeats} repeats of {steps} steps, {batch} texts of {words} words; "
        f"threads: {torch.get_num_threads()}"
    )
    print(f"{'':8} {'ms a step':>10} {'of peft':>8} {'range':>14} {'of loop':>8} {'range':>14}")
    for name, each in seconds.items():
        line = f"{name:8} {1000 * statistics.median(each):10.1f}"
        for other in ("peft", "loop"):
            ratios = [a / b for a, b in zip(each, seconds[other], strict=True)]
            line += f" {statistics.median(ratios):8.2f} {f'{min(ratios):.2f} to {max(ratios):.2f}':>14}"
        print(line)
    worst = statistics.median(a / b for a, b in zip(seconds["both"], seconds["peft"], strict=True))
    print(f"both/peft: {worst:.2f} (limit {LIMIT:g})")
    return worst <= LIMIT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 1 where the limit is passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="MiniLM-L6 unless given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--words", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    if args.steps <= SKIPPED:
        parser.error(f"--steps must be more than {SKIPPED}")
    torch.set_num_threads(args.threads)
    quiet()
    with tempfile.TemporaryDirectory(prefix="loramend-") as work:
        within = compare(
            args.model or minilm(),
            Path(work),
            repeats=args.repeats,
            steps=args.steps,
            batch=args.batch,
            words=args.words,
        )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
