"""A repair's session on the tiny text models, for tests of what learns from text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.job import Progress
from loramend.contracts.step_base import Threat
from loramend.data.examples import Example
from loramend.methods.base import Context
from loramend.reference.open import open_references
from loramend.training.host import Host, open_host
from loramend.training.mount import adapter_mount
from loramend.training.session import Checkpoints, Session


def labelled(pairs: Sequence[tuple[str, int]]) -> list[Example]:
    """Classification examples of texts and labels."""
    return [Example(text, label) for text, label in pairs]


def unlabelled(pairs: Sequence[tuple[str, int]]) -> list[Example]:
    """The texts alone."""
    return [Example(text) for text, _ in pairs]


def session_of(
    base: Path,
    adapter: Adapter,
    *,
    train: Sequence[Example] = (),
    texts: Sequence[Example] = (),
    held_out: Sequence[Example] = (),
    held_out_texts: Sequence[Example] = (),
    threat: Threat = "poisoned_adapter",
    seed: int = 0,
    on_progress: Callable[[Progress], None] = lambda _: None,
    checkpoints: Checkpoints | None = None,
    gradient_checkpointing: bool = False,
) -> Session:
    """A session with the base loaded on the CPU in float32; `texts` come beside the labelled ones."""
    return Session(
        host=open_host(base, adapter, gradient_checkpointing=gradient_checkpointing),
        given=adapter,
        threat=threat,
        labelled=train,
        texts=[*train, *texts],
        held_out=held_out,
        held_out_texts=[*held_out, *held_out_texts],
        digest="0" * 64,
        seed=seed,
        on_progress=on_progress,
        checkpoints=checkpoints,
    )


def hosted(base: Path, adapter: Path) -> Host:
    """The base in a folder with the adapter in another mounted."""
    given = read_adapter(adapter)
    host = open_host(base, given)
    host.mount(adapter_mount(given))
    return host


def context_of(base: Path, seed: int = 0) -> Context:
    """What methods measure against: the base's own weights."""
    return Context(references=open_references(base, None), device=torch.device("cpu"), seed=seed)
