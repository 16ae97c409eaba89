"""Give back to the update what alignment had added to the base model.

Source      LoX (low-rank extrapolation of the alignment displacement) and RESTA (adding a safety vector).
Approach    X = ΔW + α·SVD_k(W_aligned - W_base), exact at rank r + k, or truncated to r.
Limits      it removes nothing from the update. Where the adapter is meant for the aligned model itself, α = 1
            extrapolates to twice the displacement. Negative α takes alignment away.
"""

from collections.abc import Iterator

from torch import Tensor

from loramend.adapter.model import Adapter, Update
from loramend.contracts.steps import RestoreStep
from loramend.methods.base import Context, Outcome, left_alone, refactored
from loramend.reference.models import Subspace
from loramend.spectrum.factored import Factors, Svd, combine, from_svd, norm, truncate


def restore(adapter: Adapter, params: RestoreStep, context: Context) -> Iterator[Outcome]:
    """Add the leading displacement to every update, save where aligned model and base share the weight."""
    for update in context.references.in_order(adapter.updates.values()):
        yield _restored(update, params, context)


def _restored(update: Update, params: RestoreStep, context: Context) -> Outcome:
    subspace = context.references.displacement_subspace(
        update, k=params.k, energy=params.energy, max_k=params.max_k
    )
    if subspace.k == 0 or subspace.norm == 0:
        return left_alone(update, "base and aligned weight are equal: nothing to restore")
    added = leading(subspace, subspace.U, subspace.V, params.alpha)
    values = {
        "k": float(subspace.k),
        "displacement_energy": subspace.energy,
        "added_norm": float(norm(added)),
    }
    if params.alpha == 0:
        return left_alone(update, "alpha 0 adds nothing", values)
    factors, loss = add(update, added, params)
    return Outcome(name=update.name, update=refactored(update, factors), values=values, truncation_loss=loss)


def leading(subspace: Subspace, U: Tensor, V: Tensor, alpha: float) -> Factors:
    """α·U diag(S) Vᵀ with the subspace's S (k,) and these U (out, k), V (in, k)."""
    triplets = Svd(U.double().cpu(), subspace.S.double().cpu(), V.double().cpu())
    return from_svd(triplets, subspace.k)._replace(scale=alpha)


def add(update: Update, added: Factors, params: RestoreStep) -> tuple[Factors, float]:
    """The sum at the rank asked for, and what truncation lost of it."""
    whole = combine((1.0, update), (1.0, added))
    if params.output_rank == "sum":
        return whole, 0.0
    factors, loss = truncate(whole, update.rank)
    return factors, float(loss)
