"""Keep of an update what clean text uses.

Source      loramend; CSU's closed form (`correction.correct`) with the subspace of clean activations.
Approach    a trigger acts through input directions that clean text hardly uses. With C = Σxxᵀ over a module's
            inputs on clean text and V its k leading eigenvectors, the hard form is A ← (AV)Vᵀ, the smooth one
            attenuates what lies outside V. The output side does the same to B with G = Σggᵀ, g the loss's
            gradients at the module's output. Block by block in the order in which the model runs, so that a
            block sees the activations of what was already corrected.
Limits      what the backdoor shares with clean text stays, the more of it the larger k; a small k costs
            clean accuracy. No labels are needed; the texts must be of the kind the adapter is for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from loramend.adapter.model import Adapter, Update
from loramend.contracts.data_steps import CleanSubspaceStep
from loramend.contracts.job import Progress
from loramend.contracts.steps import CsuStep
from loramend.methods.base import ZERO_UPDATE, Context, Outcome, left_alone, refactored
from loramend.methods.correction import outcome
from loramend.methods.draws import generator
from loramend.methods.rescale import layer_of
from loramend.spectrum.factored import Factors, norm
from loramend.spectrum.krylov import Operator, leading_triplets
from loramend.training.activations import Around, Run, gradient_moments, input_moments, run_order
from loramend.training.encode import Encoded, batches, collate
from loramend.training.mount import adapter_mount
from loramend.training.replay import replay_of
from loramend.training.session import Session

BATCH = 32
CAUSAL_GRADIENT_BATCH = 4
"""Texts at a time: the gradients of a causal model need all its logits in memory."""
MOMENT_BYTES = 2 << 30
"""Of second moments held at a time where they are all taken in one go."""
EXACT_SIDE = 1536
"""Moments of at most this side are decomposed whole; of larger ones the leading k are iterated."""
RANK_TOLERANCE = 1e-12
"""Eigenvalues under this times the largest are rounding."""

_SIDES: dict[str, Literal["both", "left", "right"]] = {"input": "right", "output": "left", "both": "both"}


@dataclass(frozen=True)
class _Basis:
    """Leading eigenvectors V (d, k) of a second moment, float64 on the CPU, and the share of its trace."""

    V: Tensor
    energy: float


def clean_subspace(
    adapter: Adapter, params: CleanSubspaceStep, context: Context, session: Session
) -> Iterator[Outcome]:
    """Correct every update with the activations of `session.texts` (at most max_texts of them, by seed).

    A zero update, and one of a module that the model does not run on the text, is left alone. Raises
    DataError as `training.encode.encode` does, and what `session.on_progress` raises.
    """
    host = session.host
    encoded = _encoded(params, context, session)
    with host.mounted(adapter_mount(adapter)):
        runs = run_order(host, encoded[-1])
        groups = _blocks(runs) if params.refresh else _chunks(runs, adapter, params.side)
        replay = replay_of(host, groups, encoded[-1])
    tell = _teller(session, sum(batch.input_ids.shape[0] for batch in encoded), len(groups), params.side)
    current = adapter
    for number, group in enumerate(groups):
        seen = current if params.refresh else adapter
        with host.mounted(adapter_mount(seen)):
            around = partial(replay.passing, number)
            bases = _bases(group, encoded, params, context, session, partial(tell, group[0].name), around)
        corrected = {
            run.name: _corrected(adapter.updates[run.name], *bases[run.name], params) for run in group
        }
        yield from corrected.values()
        current = current.with_updates({name: done.update for name, done in corrected.items()})
    ran = {run.name for run in runs}
    for name, update in adapter.updates.items():
        if name not in ran:
            yield left_alone(update, "the model does not run this module on the text")


def _encoded(params: CleanSubspaceStep, context: Context, session: Session) -> list[Encoded]:
    texts = session.texts
    if len(texts) > params.max_texts:
        drawn = torch.randperm(len(texts), generator=generator(context.seed, "clean_subspace"))
        texts = [texts[index] for index in sorted(drawn[: params.max_texts].tolist())]
    host = session.host
    items = host.encode(texts, params.max_length)
    whole = host.task == "classification" or params.side == "input"
    size = BATCH if whole else CAUSAL_GRADIENT_BATCH
    return [collate([items[index] for index in rows], host.pad) for rows in batches(items, size)]


def _blocks(runs: Sequence[Run]) -> list[list[Run]]:
    """The modules of each of the model's layers together, in the order in which they run."""
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(layer_of(run.name) or run.name, []).append(run)
    return list(groups.values())


def _chunks(runs: Sequence[Run], adapter: Adapter, side: str) -> list[list[Run]]:
    """The modules in runs of consecutive ones whose moments fit in MOMENT_BYTES (a single one may exceed
    it)."""
    groups: list[list[Run]] = []
    held = 0
    for run in runs:
        out, in_ = adapter.updates[run.name].shape
        size = 8 * ((in_**2 if side != "output" else 0) + (out**2 if side != "input" else 0))
        if not groups or held + size > MOMENT_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(run)
        held += size
    return groups


def _teller(session: Session, texts: int, groups: int, side: str) -> Callable[[str, Encoded], None]:
    """Tells progress in texts read."""
    total = texts * groups * (2 if side == "both" else 1)
    done = 0

    def tell(name: str, batch: Encoded) -> None:
        nonlocal done
        session.on_progress(Progress(phase="measure", done=done, total=total, unit="examples", detail=name))
        done += int(batch.input_ids.shape[0])

    return tell


def _bases(
    group: Sequence[Run],
    encoded: Sequence[Encoded],
    params: CleanSubspaceStep,
    context: Context,
    session: Session,
    on_batch: Callable[[Encoded], None],
    around: Around,
) -> dict[str, tuple[_Basis | None, _Basis | None]]:
    """Each module's subspace of inputs and of outputs; None for a side that is not asked for."""
    host, seed = session.host, context.seed
    inputs: dict[str, _Basis] = {}
    outputs: dict[str, _Basis] = {}
    if params.side != "output":
        C = input_moments(host, encoded, group, on_batch, around)
        by_source: dict[int, _Basis] = {}
        for run in group:
            if run.source not in by_source:
                by_source[run.source] = _leading(C[run.name], params, generator(seed, "inputs", run.name))
            inputs[run.name] = by_source[run.source]
    if params.side != "input":
        draws = generator(seed, "gradients", group[0].name)
        G = gradient_moments(host, encoded, group, draws, on_batch, around)
        outputs = {
            name: _leading(moment, params, generator(seed, "outputs", name)) for name, moment in G.items()
        }
    return {run.name: (inputs.get(run.name), outputs.get(run.name)) for run in group}


def _leading(C: Tensor, params: CleanSubspaceStep, draws: torch.Generator) -> _Basis:
    """The leading eigenvectors of C (d, d): k of them, or the fewest that hold `energy` of its trace."""
    trace = float(C.trace())
    if trace <= 0:
        return _Basis(torch.empty(C.shape[0], 0, dtype=torch.float64), 1.0)
    if params.k is not None and C.shape[0] > max(EXACT_SIDE, 16 * params.k):
        found = leading_triplets(Operator(C / trace), params.k, draws)
        values, V = found.S * trace, found.V
    else:
        values, V = torch.linalg.eigh(C)
        values, V = values.flip(0), V.flip(1)
    k = int((values > RANK_TOLERANCE * values[0]).sum())
    if params.k is not None:
        k = min(k, params.k)
    else:
        held = values.clamp_min(0).cumsum(0) / trace
        k = min(k, int((held < params.energy - 1e-12).sum()) + 1)
    return _Basis(V[:, :k].cpu(), min(1.0, float(values[:k].sum()) / trace))


def _corrected(
    update: Update, inputs: _Basis | None, outputs: _Basis | None, params: CleanSubspaceStep
) -> Outcome:
    if float(norm(update)) == 0:
        return left_alone(update, ZERO_UPDATE)
    if outputs is None and params.side != "input":
        return left_alone(update, "the loss does not depend on this module's output")
    values: dict[str, float] = {}
    if inputs is not None:
        values |= {"k": float(inputs.V.shape[1]), "energy": inputs.energy}
    if outputs is not None:
        values |= {"k_output": float(outputs.V.shape[1]), "energy_output": outputs.energy}
    return confine(update, outputs.V if outputs else None, inputs.V if inputs else None, params, values)


def confine(
    update: Update,
    U: Tensor | None,
    V: Tensor | None,
    params: CleanSubspaceStep,
    values: Mapping[str, float] | None = None,
) -> Outcome:
    """A nonzero update without, or attenuated in, what lies outside the outputs spanned by U (out, k) and the
    inputs spanned by V (in, k), float64 with orthonormal columns; None leaves a side as it is. values: told
    before the outcome's own."""
    values = dict(values or {})
    out, in_ = update.shape
    if params.form == "smooth":
        form = CsuStep(attenuate="outside", penalty=params.penalty, sides=_SIDES[params.side])
        none_out, none_in = (torch.empty(size, 0, dtype=torch.float64) for size in (out, in_))
        return outcome(update, none_out if U is None else U, none_in if V is None else V, form, values)
    A, B = update.A.double(), update.B.double()
    if V is not None:
        A = (A @ V) @ V.mT
    if U is not None:
        B = U @ (U.mT @ B)
    kept = Factors(B, A, update.scale)
    values["kept"] = (float(norm(kept)) / float(norm(update))) ** 2
    return Outcome(name=update.name, update=refactored(update, kept), values=values)
