"""The honest controls: what one could have had without the repair.

fresh_lora  a new adapter for the same modules, trained on the same labelled examples with the task loss alone
continued   the given adapter trained on, likewise
shrink      the given adapter scaled to the repaired norm; it needs no data

Text without labels teaches the two trained ones nothing: without labelled examples there is shrink alone.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from loramend.adapter.model import Adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.evidence import VariantName
from loramend.contracts.job import Progress
from loramend.spectrum.factored import norm
from loramend.training.plain import fine_tune
from loramend.training.session import Session

_TRAINED: dict[VariantName, Literal["given", "fresh"]] = {"fresh_lora": "fresh", "continued": "given"}


def control_adapters(
    session: Session, repaired: Adapter, like: RoraStep | None = None
) -> dict[VariantName, Adapter]:
    """The controls of a repair of the session's adapter.

    like  the step whose rank and optimiser settings the trained controls take; None: a rora step's defaults
    """
    controls: dict[VariantName, Adapter] = {}
    if session.labelled:
        for name, start in _TRAINED.items():
            telling = replace(session, on_progress=_told_as(name, session.on_progress))
            controls[name] = fine_tune(telling, start, like)
    return controls | {"shrink": shrunk_like(session.given, repaired)}


def shrunk_like(given: Adapter, repaired: Adapter) -> Adapter:
    """The given adapter with ‖ΔW‖_F over all modules as the repaired one's; itself where it is zero."""
    before, after = (
        math.sqrt(math.fsum(float(norm(update)) ** 2 for update in adapter.updates.values()))
        for adapter in (given, repaired)
    )
    factor = after / before if before else 1.0
    return given.with_updates(
        {
            name: update.with_factors(update.B, update.A, update.scale * factor)
            for name, update in given.updates.items()
        }
    )


def _told_as(name: VariantName, on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    def told(progress: Progress) -> None:
        on_progress(progress.model_copy(update={"phase": "controls", "detail": name}))

    return told
