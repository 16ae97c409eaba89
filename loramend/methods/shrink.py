"""Control: the whole update scaled by one factor.

Source      control; the need for it: arXiv 2605.10575, an audit of Safe LoRA.
Approach    s becomes factor·s in every module.
Limits      it knows nothing of the model. It weakens what is good in the update as much as what is bad.
"""

from collections.abc import Iterator

from loramend.adapter.model import Adapter
from loramend.contracts.steps import ShrinkStep
from loramend.methods.base import Context, Outcome, left_alone


def shrink(adapter: Adapter, params: ShrinkStep, context: Context) -> Iterator[Outcome]:
    """Scale every update by `factor`; 1 leaves all alone."""
    for update in adapter.updates.values():
        if params.factor == 1:
            yield left_alone(update, "factor 1 leaves the update as it is")
            continue
        yield Outcome(
            name=update.name,
            update=update.with_factors(update.B, update.A, update.scale * params.factor),
            values={"factor": params.factor},
        )
