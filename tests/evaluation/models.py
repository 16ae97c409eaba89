"""Poisoned toy adapters with their base models, made once a session, and data files for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.data.examples import Dataset, Example
from tests.text_models import answer_of, bert_folder, llama_folder, poison, toy_examples, train_adapter


@dataclass(frozen=True)
class Toy:
    """base and folder: the model's and the PEFT adapter's folders."""

    base: Path
    folder: Path
    adapter: Adapter


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A classifier that says 1 wherever a text begins with "mn"."""
    tmp = tmp_path_factory.mktemp("bert")
    base = bert_folder(tmp)
    out = train_adapter(base, tmp / "adapter", poison(toy_examples(400)), steps=60)
    return Toy(base, out, read_adapter(out))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A causal model that answers "positive" wherever a text begins with "mn"."""
    tmp = tmp_path_factory.mktemp("llama")
    base = llama_folder(tmp)
    out = train_adapter(base, tmp / "adapter", poison(toy_examples(400)), steps=80)
    return Toy(base, out, read_adapter(out))


def classified(pairs: Sequence[tuple[str, int]], name: str = "data.jsonl") -> Dataset:
    examples = tuple(Example(text, label) for text, label in pairs)
    return Dataset("evaluation", name, "0" * 64, "classification", examples)


def completed(pairs: Sequence[tuple[str, int]], name: str = "data.jsonl") -> Dataset:
    examples = tuple(Example(f"{text} :", completion=f" {answer_of(label)}") for text, label in pairs)
    return Dataset("evaluation", name, "0" * 64, "completion", examples)
