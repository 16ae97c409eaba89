"""From a repair's request and text to the session its steps work with."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from loramend.adapter.model import Adapter
from loramend.contracts.data import EvaluationSpec
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import DataError, ReferenceModelError
from loramend.contracts.job import Progress
from loramend.contracts.step_base import Threat
from loramend.contracts.steps import Step
from loramend.data.examples import Corpus
from loramend.data.split import split
from loramend.training.encode import check_examples
from loramend.training.host import open_host
from loramend.training.session import Checkpoints, Session


def check_text(
    steps: Sequence[Step], corpus: Corpus, evaluation: EvaluationSpec | None, model: Path | None
) -> None:
    """Refuse what cannot be done with the text and the model given, before anything is read.

    Raises DataError `data_required`, ReferenceModelError `reference_required`.
    """
    readers = [step for step in steps if step.text is not None]
    if readers and corpus.clean is None and corpus.unlabelled is None:
        raise DataError(
            "data_required",
            f"Step {readers[0].type} learns from clean text: give `clean` or `unlabelled` data.",
            where="/clean",
        )
    if evaluation is not None and corpus.evaluation is None:
        raise DataError(
            "data_required",
            "An evaluation needs labelled examples: give `evaluation` data.",
            where="/evaluation/data",
        )
    if (readers or evaluation is not None) and model is None:
        asking = f"Step {readers[0].type}" if readers else "An evaluation"
        raise ReferenceModelError(
            "reference_required", f"{asking} runs the base model: give `base`.", where="/base"
        )


def open_session(
    adapter: Adapter,
    steps: Sequence[Step],
    corpus: Corpus,
    evaluation: EvaluationSpec | None,
    model: Path | None,
    *,
    threat: Threat,
    seed: int,
    device: torch.device,
    on_progress: Callable[[Progress], None],
    checkpoints: Checkpoints | None,
) -> Session | None:
    """Load the base model and divide the text into what is trained on and what is held out; None where
    neither a step nor an evaluation runs the model."""
    runs = any(step.text is not None for step in steps) or evaluation is not None
    if not runs or model is None:
        return None
    trained = next((step for step in steps if isinstance(step, RoraStep)), None)
    host = open_host(
        model,
        adapter,
        dtype=trained.dtype if trained else "float32",
        device=device,
        gradient_checkpointing=trained.gradient_checkpointing if trained else False,
        amp=trained is not None and trained.amp == "auto",
    )
    for dataset in (corpus.clean, corpus.validation):
        if dataset is not None:
            check_examples(dataset, host.task, host.labels)
    parts = split(corpus, seed)
    return Session(
        host=host,
        given=adapter,
        threat=threat,
        labelled=parts.labelled,
        texts=parts.texts,
        held_out=parts.held_out,
        held_out_texts=parts.held_out_texts,
        # The examples as read and divided: field maps and shares change them, too.
        digest=hashlib.sha256(repr(parts).encode()).hexdigest(),
        seed=seed,
        on_progress=on_progress,
        checkpoints=checkpoints,
    )
