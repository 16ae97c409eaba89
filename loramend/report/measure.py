"""Every measure the report holds of an adapter's modules, in one pass over the reference weights."""

from collections.abc import Callable
from dataclasses import dataclass

from loramend.adapter.model import Adapter
from loramend.contracts.report import BaseComparison, EnergySplit, Robustness, Spectrum
from loramend.contracts.steps import SubspaceStep
from loramend.reference.models import References
from loramend.spectrum.factored import svd
from loramend.spectrum.measures import base_comparison, energy_split, robustness, spectrum

TOP_OF_BASE = 32


@dataclass(frozen=True)
class Measured:
    """The measures of one module; `base` and `energy` are None without the models they need."""

    spectrum: Spectrum
    robustness: Robustness | None
    base: BaseComparison | None
    energy: EnergySplit | None


def measure(
    adapter: Adapter, references: References, *, split: SubspaceStep, on_module: Callable[[str], None]
) -> dict[str, Measured]:
    """Measure every module, by name. `split` says over which displacement subspace energy is divided."""
    measured = {}
    for update in references.in_order(adapter.updates.values()):
        usv = svd(update)
        base = energy = None
        if references.has_base:
            base = base_comparison(usv, update.scale, references.base_spectrum(update, TOP_OF_BASE))
        if references.has_base and references.has_aligned:
            subspace = references.displacement_subspace(
                update, k=split.k, energy=split.energy, max_k=split.max_k
            )
            energy = energy_split(update, subspace)
        measured[update.name] = Measured(spectrum(usv.S), robustness(update), base, energy)
        on_module(update.name)
    return measured
