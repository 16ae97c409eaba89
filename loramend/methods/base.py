"""What a method is: a pure function from an adapter to outcomes, one a module."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch

from loramend.adapter.model import Adapter, Update
from loramend.contracts.step_base import StepBase
from loramend.reference.models import References
from loramend.spectrum.factored import Factors


@dataclass(frozen=True)
class Context:
    """What a method may use beside the adapter and its parameters.

    references  base and aligned weights and displacement subspaces; a method only asks for what its step
    `needs`
    device      where dense products with reference weights run
    seed        every random draw is derived from it and the module's name, so order does not matter
    """

    references: References
    device: torch.device
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a method did to one module.

    update  the result; the input itself where `applied` is false
    values  the method's own numbers, for the report
    truncation_loss  share of ‖X‖_F² lost by returning to the asked rank
    """

    name: str
    update: Update
    applied: bool = True
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    truncation_loss: float = 0.0


ZERO_UPDATE = "the update is zero"


def left_alone(update: Update, reason: str, values: Mapping[str, float] | None = None) -> Outcome:
    """The outcome of a module that the method did not change."""
    return Outcome(name=update.name, update=update, applied=False, reason=reason, values=values or {})


def refactored(update: Update, factors: Factors) -> Update:
    """The same module with these factors, in its own dtype; a scale in them is kept."""
    B, A = factors.B.to(update.B), factors.A.to(update.A)
    return update.with_factors(B, A, float(factors.scale))


P_contra = TypeVar("P_contra", bound=StepBase, contravariant=True)


class Method(Protocol[P_contra]):
    """Yields exactly one Outcome for each update, in any order; the adapter given is not changed."""

    def __call__(self, adapter: Adapter, params: P_contra, context: Context) -> Iterator[Outcome]: ...
