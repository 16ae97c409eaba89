"""CSU-style correction of an adapter that undoes alignment, without training.

Source      the abstract of "CSU-LoRA", arXiv 2605.30640; its equations could not be read, so ours may differ.
            Attenuating inside is loramend's.
Approach    what of the update meets the displacement subspace between an aligned model and its base is
            weighed apart from the rest, in closed form (`correction.correct` has the equations). The abstract
            keeps what lies inside and attenuates the rest. By default it is the other way round: alignment
            tells harmful requests by the input directions V that its displacement reads, and an adapter
            undoes it where it reads the same ones; without that part the aligned model answers there.
Limits      inside: what the task itself reads along V goes too, the more of it the larger k. Outside: an
            update spread evenly over all directions has nearly all its energy outside any small subspace, and
            the method comes close to plain shrinking. The placebo controls show whether a repair did more.
            Directions that carry safety carry usefulness too (arXiv 2505.14185).
"""

from collections.abc import Iterator

from loramend.adapter.model import Adapter, Update
from loramend.contracts.steps import CsuStep
from loramend.methods.base import ZERO_UPDATE, Context, Outcome, left_alone
from loramend.methods.correction import outcome
from loramend.spectrum.factored import norm


def csu(adapter: Adapter, params: CsuStep, context: Context) -> Iterator[Outcome]:
    """Correct every update with its weight's displacement subspace. A zero update, and one whose weight the
    aligned model shares with the base, is left alone."""
    for update in context.references.in_order(adapter.updates.values()):
        yield _corrected(update, params, context)


def _corrected(update: Update, params: CsuStep, context: Context) -> Outcome:
    if float(norm(update)) == 0:
        return left_alone(update, ZERO_UPDATE)
    subspace = context.references.displacement_subspace(
        update, k=params.k, energy=params.energy, max_k=params.max_k
    )
    if subspace.k == 0 or subspace.norm == 0:
        return left_alone(update, "base and aligned weight are equal: no displacement to compare with")
    values = {"k": float(subspace.k), "displacement_energy": subspace.energy}
    return outcome(update, subspace.U, subspace.V, params, values)
