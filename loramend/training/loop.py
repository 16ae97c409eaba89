"""The training loop: AdamW with warm-up and linear decay, resumable and, on a CPU, the same bit for bit.

Every random draw of a step, dropout's too, comes from the seed and the step's number; the process's own
generators are left as they were.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import RequestError
from loramend.contracts.evidence import LossPoint
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.training.adversary import Adversary, Soft
from loramend.training.checkpoint import Journal, State, load_state, save_state
from loramend.training.constraint import Constraint
from loramend.training.encode import Encoded
from loramend.training.host import Host, Output
from loramend.training.mixup import mixed
from loramend.training.mount import Mount
from loramend.training.objective import Pair, feature_loss, task_loss, teacher_loss
from loramend.training.sample import Sampler, number_of
from loramend.training.session import Checkpoints

Terms = Iterator[tuple[str, Tensor]]
"""Weighted terms of the loss by name, each worked out when it is asked for."""

_CLIP = 1.0
_CURVE_POINTS = 50
_HALF_LOSS_SCALE = 2.0**8
"""float16 loses gradients under 6e-8: the loss is multiplied by this, the gradients divided by it."""


@dataclass(frozen=True)
class Run:
    """What is trained, on what and against what.

    mount       its `trained` updates, and those of its tensors that require a gradient, change in place
    teacher     the adapter whose answers are learned; None learns labels alone
    texts       what batches are drawn from
    plain       learn a causal model's plain texts whole
    constraint  Ω; None where it is off
    key         of its checkpoints; None keeps none
    found       words to put in beside random ones
    odd         words to stand in common words' places
    """

    host: Host
    mount: Mount
    teacher: Mount | None
    texts: Sequence[Example]
    plain: bool
    constraint: Constraint | None
    params: RoraStep
    seed: int
    key: str | None = None
    found: Sequence[str] = ()
    odd: Sequence[str] = ()


def parameters_of(mount: Mount) -> dict[str, nn.Parameter]:
    """What a mount trains, by a name of its own."""
    found: dict[str, nn.Parameter] = {}
    for name, module in mount.trained.items():
        found |= {f"{name}.A": module.A, f"{name}.B": module.B}
    for name, tensor in mount.tensors.items():
        if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
            found[name] = tensor
    return found


def train(run: Run, on_progress: Callable[[Progress], None], checkpoints: Checkpoints | None) -> Journal:
    """Train for `params.steps` steps, from the run's newest checkpoint where there is one.

    on_progress is called after each step; an exception it raises ends the run and passes through, and what
    the last checkpoint holds is not lost.

    Without a teacher the model's own dropout is on, as in any fine-tuning; a student answers without it, as
    its teacher does.

    Raises RequestError `method_unsupported` where loss or gradient stop being finite.
    """
    params, host = run.params, run.host
    parameters = parameters_of(run.mount)
    optimiser = torch.optim.AdamW(parameters.values(), lr=params.lr, weight_decay=params.weight_decay)
    journal = Journal()
    kept = load_state(checkpoints, run.key, parameters) if checkpoints and run.key else None
    if kept is not None:
        _restore(parameters, optimiser, kept)
        journal = kept.journal
        journal.resumed_at.append(journal.step)
    if journal.step >= params.steps:
        return journal
    taught = run.teacher is not None
    sampler = Sampler(
        host,
        run.texts,
        params,
        run.seed,
        teacher=taught,
        plain=run.plain,
        found=run.found,
        odd=run.odd,
    )
    with _ready(run):
        adversary = Adversary(host, params, run.seed) if taught and params.adversary else None
        while journal.step < params.steps:
            started = time.monotonic()
            terms = _step(run, sampler, adversary, optimiser, list(parameters.values()), journal.step)
            _note(journal, terms, time.monotonic() - started, params)
            due = journal.step == params.steps or journal.step % params.checkpoint_every == 0
            if checkpoints and run.key and due:
                save_state(checkpoints, run.key, _state(parameters, optimiser, journal))
            on_progress(_progress(terms, time.monotonic() - started, journal.step, params))
    return journal


@contextmanager
def _ready(run: Run) -> Iterator[None]:
    """The host with the student mounted and its dropout set, and as it was afterwards."""
    with run.host.mounted(run.mount):
        run.host.frozen_dropout(run.params.dropout, run.params.dropout_reading)
        try:
            yield
        finally:
            run.host.frozen_dropout(0.0)


def _step(
    run: Run,
    sampler: Sampler,
    adversary: Adversary | None,
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    step: int,
) -> dict[str, float]:
    """One step of the optimiser. Gives the weighted terms and their sum, `loss`, over the step's batches."""
    params = run.params
    up = _HALF_LOSS_SCALE if params.dtype == "float16" else 1.0
    for group in optimiser.param_groups:
        group["lr"] = params.lr * _schedule(step, params)
    optimiser.zero_grad()
    told: Counter[str] = Counter()
    for part in range(params.accumulate):
        number = step * params.accumulate + part
        pair = sampler.batch(number)
        teacher = _answers(run, pair.plain)
        terms = _terms(run, pair, teacher, partial(adversary.soft, number, scale=up) if adversary else None)
        if part == 0:
            terms = chain(terms, _omega(run))
        told.update(_learn(run, terms, "dropout", number, up))
        if _is_mixed_beside(number, params):
            batch, embedded = mixed(run.host, pair.plain, run.seed, number)
            teacher = _answers(run, batch, embedded)
            told.update(_learn(run, _mixed_terms(run, batch, embedded, teacher), "mixed dropout", number, up))
    if up != 1.0:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= up
    size = nn.utils.clip_grad_norm_(parameters, _CLIP)
    if not (math.isfinite(told["loss"]) and bool(size.isfinite())):
        raise RequestError(
            "method_unsupported",
            f"Training left the finite numbers at step {step + 1}: lower `lr`, or take a wider `dtype`.",
            where="rora.lr",
        )
    optimiser.step()
    return dict(told)


def _learn(run: Run, terms: Terms, draws: str, number: int, up: float) -> dict[str, float]:
    """Work out a batch's terms and run them backward. Gives them and their sum, `loss`, as shares of the
    step's.

    draws  what the dropout is drawn for, with the batch's number
    """
    with (
        # Backward is inside: gradient checkpointing runs the layers again, with the same dropout.
        _seeded(number_of(run.seed, draws, number), run.host.device),
        run.host.training(own_dropout=run.teacher is None),
    ):
        shares = {name: term / run.params.accumulate for name, term in terms}
        loss = torch.stack(list(shares.values())).sum()
        torch.autograd.backward(loss * up)
    values = torch.stack([loss, *shares.values()]).detach().tolist()
    return dict(zip(("loss", *shares), values, strict=True))


def _answers(run: Run, plain: Encoded, embedded: Tensor | None = None) -> Output | None:
    """The teacher's, to the texts as they were or to what is embedded in their place; None where nothing is
    learned from it."""
    if run.teacher is None:
        return None
    with torch.no_grad(), run.host.mounted(run.teacher):
        return run.host.forward(plain, hidden=run.params.features > 0, fast=True, embedded=embedded)


def _terms(
    run: Run, pair: Pair, teacher: Output | None, soft: Callable[[Encoded, Output], Soft] | None
) -> Terms:
    """The weighted terms of one batch that are on; soft puts soft words into it."""
    params = run.params
    misleading = soft(pair.plain, teacher) if soft is not None and teacher is not None else None
    hidden = teacher is not None and params.features > 0
    student = run.host.forward(pair.read, hidden=hidden, fast=True)
    if params.task:
        yield "task", params.task * task_loss(student, pair)
    if teacher is not None and params.teacher:
        yield "teacher", params.teacher * teacher_loss(student, teacher, pair, params.temperature)
    if teacher is not None and params.features:
        yield "features", params.features * feature_loss(student, teacher, pair)
    if teacher is not None and misleading is not None:
        misled = run.host.forward(misleading.pair.read, fast=True, embedded=misleading.embedded)
        loss = teacher_loss(misled, teacher, misleading.pair, params.temperature)
        yield "adversary", params.adversary * loss


def _omega(run: Run) -> Terms:
    """The weighted constraint where it is on: of a step, not of a batch."""
    if run.constraint is not None:
        yield "omega", run.params.accumulate * run.params.penalty * run.constraint()


def _is_mixed_beside(number: int, params: RoraStep) -> bool:
    """Whether the batch of that number is one of the share `mixup`, which lie evenly."""
    share = (params.mixup or 0.0) if params.teacher else 0.0
    return math.floor((number + 1) * share) > math.floor(number * share)


def _mixed_terms(run: Run, batch: Encoded, embedded: Tensor, teacher: Output | None) -> Terms:
    """The weighted loss against the teacher's answers to texts mixed in pairs."""
    assert teacher is not None
    student = run.host.forward(batch, fast=True, embedded=embedded)
    nothing = torch.zeros(batch.labels.shape[0], dtype=torch.bool, device=batch.labels.device)
    pair = Pair(batch, batch, known=nothing, untouched=nothing)
    yield "mixup", run.params.teacher * teacher_loss(student, teacher, pair, run.params.temperature)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators seeded inside the block, and as they were after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _schedule(step: int, params: RoraStep) -> float:
    """The learning rate's factor: up from zero over the warm-up, down to zero over the rest."""
    warm = params.warmup * params.steps
    if step < warm:
        return min(1.0, (step + 1) / warm)
    return (params.steps - step) / (params.steps - math.ceil(warm))


def _note(journal: Journal, terms: Mapping[str, float], seconds: float, params: RoraStep) -> None:
    """Add a step to the journal, and a point to its curve when one is due."""
    journal.step += 1
    journal.seconds += seconds
    journal.since_steps += 1
    journal.since_seconds += seconds
    for name, value in terms.items():
        journal.since[name] = journal.since.get(name, 0.0) + value
    if journal.step % math.ceil(params.steps / _CURVE_POINTS) and journal.step != params.steps:
        return
    means = {name: value / journal.since_steps for name, value in journal.since.items()}
    samples = journal.since_steps * params.batch * params.accumulate
    journal.curve.append(
        LossPoint(
            step=journal.step,
            loss=means.pop("loss"),
            terms=means,
            samples_per_second=samples / max(journal.since_seconds, 1e-9),
        )
    )
    journal.since, journal.since_steps, journal.since_seconds = {}, 0, 0.0


def _progress(terms: Mapping[str, float], seconds: float, step: int, params: RoraStep) -> Progress:
    values = {
        "loss": terms["loss"],
        "samples_per_second": params.batch * params.accumulate / max(seconds, 1e-9),
    }
    if "omega" in terms:
        values["omega"] = terms["omega"] / params.penalty
    return Progress(phase="train", done=step, total=params.steps, unit="steps", values=values)


def _state(
    parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, journal: Journal
) -> State:
    moments = {
        name: dict(optimiser.state[parameter])
        for name, parameter in parameters.items()
        if parameter in optimiser.state
    }
    return State({name: parameter.data for name, parameter in parameters.items()}, moments, journal)


def _restore(parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, state: State) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state.parameters[name])
            if name in state.moments:
                # AdamW counts its steps on the CPU.
                optimiser.state[parameter] = {
                    part: tensor.clone() if part == "step" else tensor.to(parameter.device, copy=True)
                    for part, tensor in state.moments[name].items()
                }
