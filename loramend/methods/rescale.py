"""Spectral rescaling: give the update the size of the weight it is added to.

Source      RoRA part 3, arXiv 2601.06305.
Approach    against a poisoned base model, the update of the model's last layers gets the scale
            s = ratio·σ_max(W_base)/σ_max(BA) in the place of alpha/r.
Limits      after a gentle training σ_max(BA) is tiny, s huge, and clean accuracy can be lost: hence the
            guard. "Last layers" counts what the adapter touches: for each stack of layers, its highest
            layer index among the modules' names is taken as the stack's last layer.
"""

import math
import re
from collections.abc import Collection, Iterator
from typing import Literal

from loramend.adapter.model import Adapter, Update
from loramend.contracts.errors import RequestError
from loramend.contracts.steps import RescaleStep
from loramend.methods.base import ZERO_UPDATE, Context, Outcome, left_alone
from loramend.spectrum.factored import Factors, singular_values
from loramend.spectrum.measures import ALIGNMENT_K

# `layers.3`, `h.3`, `layer.3`, `blocks.3`, `transformer_blocks.3`: the outermost numbered container.
_LAYER = re.compile(r"(?:^|\.)(?:h|\w*(?:layers?|blocks?))\.(\d+)(?=\.|$)")


def rescale(adapter: Adapter, params: RescaleStep, context: Context) -> Iterator[Outcome]:
    """Rescale the updates of each stack's last `layers` layers (encoder and decoder are two), or all.

    Raises RequestError `method_unsupported` where no module's name holds a layer index and `layers` is a
    number, `scale_guard` where a scale would grow by more than `max_scale`.
    """
    chosen = _last_layers(adapter.updates, params.layers)
    for update in context.references.in_order(adapter.updates.values()):
        if update.name not in chosen:
            yield left_alone(update, f"not in the last {params.layers} layers")
        else:
            yield _rescaled(update, params, context)


def layer_of(name: str) -> tuple[str, int] | None:
    """The stack and index of the model layer a module lies in: `model.layers`, 3 for
    `model.layers.3.mlp.up_proj`."""
    found = _LAYER.search(name)
    return (name[: found.start(1) - 1], int(found.group(1))) if found else None


def _last_layers(names: Collection[str], layers: int | Literal["all"]) -> frozenset[str]:
    """The modules in the last layers of their stack."""
    if layers == "all":
        return frozenset(names)
    places = {name: place for name in names if (place := layer_of(name)) is not None}
    if not places:
        raise RequestError(
            "method_unsupported",
            "No module's name holds a layer index such as `layers.3`, so the last layers cannot be told: "
            "ask for layers = 'all'.",
            where="rescale.layers",
        )
    last: dict[str, int] = {}
    for stack, index in places.values():
        last[stack] = max(index, last.get(stack, 0))
    return frozenset(name for name, (stack, index) in places.items() if index > last[stack] - layers)


def _rescaled(update: Update, params: RescaleStep, context: Context) -> Outcome:
    sigma_update = float(singular_values(Factors(update.B, update.A))[0])
    if sigma_update == 0 or update.scale == 0:
        return left_alone(update, ZERO_UPDATE)
    base = context.references.base_spectrum(update, ALIGNMENT_K)
    if base.k == 0:
        return left_alone(update, "the base weight is zero: no size to scale to")
    sigma_base = float(base.S[0])
    scale = math.copysign(params.ratio * sigma_base / sigma_update, update.scale)
    factor = scale / update.scale
    values = {
        "sigma_max_base": sigma_base,
        "sigma_max_update": sigma_update,
        "scale": scale,
        "factor": factor,
    }
    if params.mode == "cap" and factor >= 1:
        return left_alone(update, "already at or under the target", values)
    if factor > params.max_scale:
        raise RequestError(
            "scale_guard",
            f"Rescaling would multiply the scale of {update.name} by {factor:.4g}, over the guard "
            f"max_scale = {params.max_scale:g}: its update is tiny beside its base weight. Lower `ratio`, "
            f"take mode 'cap', or raise `max_scale` if a factor this large is meant.",
            where=update.name,
        )
    return Outcome(name=update.name, update=update.with_factors(update.B, update.A, scale), values=values)
