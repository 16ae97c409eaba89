"""The repairs that are compared, each along its own strength, and the controls beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loramend.adapter.model import Adapter
from loramend.contracts.data_steps import CleanSubspaceStep
from loramend.contracts.steps import (
    CsuStep,
    IntrudersStep,
    RandomSubspaceStep,
    RestoreStep,
    SafeLoraStep,
    ShrinkStep,
    Step,
)
from loramend.methods.base import Context
from loramend.methods.clean_subspace import clean_subspace
from loramend.methods.registry import METHODS as REPAIRS
from loramend.training.session import Session

INSIDE = (1.0, 10.0, 100.0)
OUTSIDE = (1.0, 3.0, 10.0)
"""Penalties λ of csu by the part that it attenuates."""

MODULES = 210  # linear layers of the model


@dataclass(frozen=True)
class Method:
    """A repair or control.

    step       the step at a strength
    strengths  weakest first
    control    drawn in grey
    draws      seeds it is repeated with, the mean taken
    """

    title: str
    step: Callable[[float], Step]
    strengths: tuple[float, ...]
    control: bool = False
    draws: int = 1


def _csu(penalty: float) -> Step:
    return CsuStep(penalty=penalty)


def _csu_by_abstract(penalty: float) -> Step:
    return CsuStep(attenuate="outside", sides="both", k=None, penalty=penalty)


METHODS: Mapping[str, Method] = {
    "csu": Method("csu, as it comes", _csu, INSIDE),
    "csu_by_abstract": Method("csu, after the paper's abstract", _csu_by_abstract, OUTSIDE),
    "safe_lora": Method(
        "Safe LoRA",
        lambda share: SafeLoraStep(select="number", count=round(share * MODULES)),
        (0.25, 0.5, 1.0),
    ),
    "restore": Method("restore", lambda alpha: RestoreStep(alpha=alpha), (0.4, 1.0)),
    "clean_subspace": Method(
        "clean_subspace, given texts of the task", lambda k: CleanSubspaceStep(k=int(k)), (128.0, 32.0, 8.0)
    ),
    "intruders": Method("intruders", lambda kept: IntrudersStep(mitigation=kept), (0.5, 0.0)),
    "shrink": Method("shrunk", lambda kept: ShrinkStep(factor=kept), (0.8, 0.6, 0.5), control=True),
    "random_subspace": Method(
        "csu on random directions",
        lambda penalty: RandomSubspaceStep(penalty=penalty),
        (100.0,),
        control=True,
        draws=5,
    ),
}


def repaired(adapter: Adapter, step: Step, context: Context, session: Session) -> Adapter:
    """The adapter after the step alone.

    session  the clean text that is there for a step that reads some
    """
    if isinstance(step, CleanSubspaceStep):
        outcomes = clean_subspace(adapter, step, context, session)
    else:
        outcomes = REPAIRS[step.type](adapter, step, context)
    return adapter.with_updates({outcome.name: outcome.update for outcome in outcomes})
