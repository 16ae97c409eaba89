"""Control: CSU's correction with random subspaces in the displacement's place.

Source      control; the need for it: arXiv 2605.10575, an audit of Safe LoRA.
Approach    csu's closed form with a uniformly random U (out, k) and V (in, k) for each module, drawn from
            the seed and the module's name.
Limits      it knows nothing of the model: what it achieves, any attenuation of that size would.
"""

from collections.abc import Iterator

from torch import Tensor

from loramend.adapter.model import Adapter, Update
from loramend.contracts.steps import RandomSubspaceStep
from loramend.methods.base import ZERO_UPDATE, Context, Outcome, left_alone
from loramend.methods.correction import outcome
from loramend.methods.draws import generator, orthonormal
from loramend.spectrum.factored import norm


def random_subspace(adapter: Adapter, params: RandomSubspaceStep, context: Context) -> Iterator[Outcome]:
    """Correct every update with random subspaces of rank k, at most the size of its smaller side."""
    for update in adapter.updates.values():
        yield _corrected(update, params, context.seed)


def random_pair(update: Update, k: int, seed: int, *names: str) -> tuple[Tensor, Tensor]:
    """U (out, k) and V (in, k), k at most the smaller side, float64, by seed, module name and `names`."""
    out, in_ = update.shape
    k = min(k, out, in_)
    source = generator(seed, update.name, *names)
    return orthonormal(out, k, source), orthonormal(in_, k, source)


def _corrected(update: Update, params: RandomSubspaceStep, seed: int) -> Outcome:
    if float(norm(update)) == 0:
        return left_alone(update, ZERO_UPDATE)
    U, V = random_pair(update, params.k, seed)
    return outcome(update, U, V, params, {"k": float(U.shape[1])})
