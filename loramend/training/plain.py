"""Plain fine-tuning on labelled text: what one would do without a repair, for controls and benchmarks."""

from dataclasses import replace
from typing import Literal

from loramend.adapter.model import Adapter
from loramend.contracts.data_steps import RoraStep
from loramend.methods.base import refactored
from loramend.training.loop import Run, train
from loramend.training.session import Session
from loramend.training.student import student, trained_factors, with_heads

_OFF: dict[str, float] = {
    "mix": 0.0,
    "dropout": 0.0,
    "penalty": 0.0,
    "teacher": 0.0,
    "features": 0.0,
    "task": 1.0,
    "recombine": 0.0,
    "insert": 0.0,
}


def fine_tune(session: Session, start: Literal["given", "fresh"], params: RoraStep | None = None) -> Adapter:
    """The session's given adapter trained on (`given`), or a new one of the same targets (`fresh`), on the
    labelled examples with the task loss alone; no checkpoints are kept.

    Rank, steps, batch, rate and lengths are those of `params`; its dropout on the frozen path, Ω, teacher,
    insertion and rescaling are off. Saved heads are trained; a fresh classifier's start from the seed.
    """
    given, host = session.given, session.host
    trains_heads = bool(given.config.get("modules_to_save"))
    settings = (params or RoraStep()).model_copy(
        update=_OFF | {"start": start, "head": "train" if trains_heads else "keep"}
    )
    new = start == "fresh" and host.task == "classification"
    mount = student(host, given, settings, session.seed, heads="new" if new else "given")
    run = Run(
        host=host,
        mount=mount,
        teacher=None,
        texts=session.labelled,
        plain=False,
        constraint=None,
        params=settings,
        seed=session.seed,
    )
    train(run, session.on_progress, None)
    factors = trained_factors(mount)
    updates = {name: refactored(update, factors[name]) for name, update in given.updates.items()}
    return replace(with_heads(given, mount), updates=updates)
