"""Every measure the report holds of an adapter's modules, in one pass over the reference weights."""

from collections.abc import Callable
from dataclasses import dataclass

from loramend.adapter.model import Adapter
from loramend.contracts.report import BaseComparison, EnergySplit, Robustness, Spectrum
from loramend.contracts.steps import SubspaceStep
from loramend.reference.models import References
from loramend.spectrum.factored import Svd, svds
from loramend.spectrum.measures import ALIGNMENT_K, base_comparison, energy_split, robustness, spectrum


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
    # All singular values, but of the vectors the leading pair alone: an adapter's worth would be large.
    leading = {
        update.name: Svd(U[:, :1].clone(), S, V[:, :1].clone())
        for update, (U, S, V) in svds(adapter.updates.values())
    }
    measured = {}
    for update in references.in_order(adapter.updates.values()):
        usv = leading[update.name]
        base = energy = None
        if references.has_base:
            base = base_comparison(usv, update.scale, references.base_spectrum(update, ALIGNMENT_K))
        if references.has_base and references.has_aligned:
            subspace = references.displacement_subspace(
                update, k=split.k, energy=split.energy, max_k=split.max_k
            )
            energy = energy_split(update, subspace)
        measured[update.name] = Measured(spectrum(usv.S), robustness(update), base, energy)
        on_module(update.name)
    return measured
