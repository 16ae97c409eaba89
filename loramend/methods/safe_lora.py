"""Safe LoRA: project the update onto the displacement between an aligned model and its base.

Source      arXiv 2405.16833, and its published code.
Approach    V = W_aligned - W_base, C = VVᵀ/‖V‖_F; where cos(CBA, BA) is low, B ← CB. Here CB =
            V(VᵀB)/‖V‖_F, so C (out, out) is never formed, and the cosine comes from r x r products.
Limits      C is no projector (its eigenvalues are σ²/‖V‖_F): a V twice as large gives a B twice as large.
            An audit (arXiv 2605.10575) found the method close to plain shrinking; see the placebo controls.
            As in the published code the cosine is rounded to five digits before it is compared, and under
            `number` all modules that tie with the last one chosen are projected; modules are matched by
            name, where that code pairs them by position.
"""

from collections.abc import Iterator

import torch

from loramend.adapter.model import Adapter, Update
from loramend.contracts.steps import SafeLoraStep
from loramend.methods.base import ZERO_UPDATE, Context, Outcome, left_alone
from loramend.spectrum.factored import cosine, norm

DIGITS = 5


def safe_lora(adapter: Adapter, params: SafeLoraStep, context: Context) -> Iterator[Outcome]:
    """Project the modules whose cosine is at or below tau (`threshold`), or the `count` lowest (`number`)."""
    updates = context.references.in_order(adapter.updates.values())
    # Under `number`, projected modules wait here until enough lower ones are known to rule them out.
    waiting: list[tuple[float, Outcome, Update]] = []
    for update in updates:
        outcome = _projected(update, context)
        if not outcome.applied:
            yield outcome
            continue
        value = outcome.values["cosine"]
        if params.select == "threshold":
            yield outcome if value <= params.tau else _spared(update, outcome, f"over tau = {params.tau}")
            continue
        waiting.append((value, outcome, update))
        waiting.sort(key=lambda entry: entry[0])
        while len(waiting) > params.count and waiting[-1][0] > waiting[params.count - 1][0]:
            _, outcome, update = waiting.pop()
            yield _spared(update, outcome, f"not among the {params.count} lowest")
    for _, outcome, _ in waiting:
        yield outcome


def _projected(update: Update, context: Context) -> Outcome:
    """B ← CB, with the cosine by which modules are chosen."""
    size = float(norm(update))
    if size == 0:
        return left_alone(update, ZERO_UPDATE)
    V = context.references.displacement(update).to(context.device)  # (out, in)
    # Rows in V's dtype, their norms in float64: a single float32 sum over a large matrix loses digits.
    V_norm = float(torch.linalg.vector_norm(torch.linalg.vector_norm(V, dim=1).double()))
    if V_norm == 0:
        return left_alone(update, "base and aligned weight are equal: no displacement to project on")
    B = update.B.to(V)
    CB = ((V @ (V.mT @ B)) / V_norm).to(update.B)
    projected = update.with_factors(CB, update.A, update.scale)
    values = {
        "cosine": round(float(cosine(projected, update)), DIGITS),
        "gain": float(norm(projected)) / size,
        "displacement_norm": V_norm,
    }
    return Outcome(name=update.name, update=projected, values=values)


def _spared(update: Update, outcome: Outcome, why: str) -> Outcome:
    return left_alone(update, f"cosine {outcome.values['cosine']} is {why}", outcome.values)
