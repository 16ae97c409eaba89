"""The report's sentences. They claim no more than its numbers."""

from collections.abc import Sequence

from loramend.adapter.model import Adapter
from loramend.contracts.report import ModuleReport, PlaceboComparison, Totals
from loramend.contracts.steps import Step

NOT_MEASURED = (
    "Behaviour was not measured: this looked at weights alone, so it cannot say whether "
    "a trigger still works "
    "or whether refusals came back."
)
RECIPE = (
    "The robustness measures describe how the adapter was trained and are no evidence of "
    "poisoning: it holds the "
    "trained A, not A at initialisation (arXiv 2505.12871)."
)
CSU_STYLE = (
    "csu is CSU-style, after the abstract of arXiv 2605.30640: the paper's equations "
    "could not be read, so ours "
    "may differ."
)


RESCALED = (
    "Rescaling trades accuracy on clean text for forgetting: reproductions of RoRA at the "
    "paper's ratio of 1 saw "
    "clean accuracy fall as low as 51%. Measure before use."
)


def describe_adapter(adapter: Adapter, totals: Totals) -> str:
    """What was read, in one sentence."""
    ranks = sorted({update.rank for update in adapter.updates.values()})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return (
        f"Read {totals.modules} LoRA module{'s' if totals.modules != 1 else ''} of {rank} "
        f"({totals.parameters:,} parameters, {adapter.format} format)."
    )


def strongest(modules: Sequence[ModuleReport]) -> str:
    """Where the update is largest."""
    top = max(modules, key=lambda module: module.before.norm)
    return f"The largest update is {top.name}: ‖ΔW‖ = {top.before.norm:.4g}, σ_1 = {_first(top):.4g}."


def _first(module: ModuleReport) -> float:
    return module.before.sigma[0] if module.before.sigma else 0.0


def describe_repair(steps: Sequence[Step], modules: Sequence[ModuleReport], totals: Totals) -> list[str]:
    """What was done and how far it moved the update."""
    names = ", then ".join(step.type for step in steps)
    changed = sum(any(step.applied for step in module.steps) for module in modules)
    sentences = [f"Repaired by {names}; {changed} of {totals.modules} modules changed."]
    if totals.distance is not None and totals.norm_after is not None:
        sentences.append(
            f"The update moved by {_moved(totals.distance)} its norm; ‖ΔW‖ over all modules went from "
            f"{totals.norm_before:.4g} to {totals.norm_after:.4g}."
        )
    return sentences


def _moved(distance: float) -> str:
    """A relative distance in words that precede "its norm"."""
    return f"{distance:.1%} of" if distance < 2 else f"{distance:.1f} times"


def summary(
    adapter: Adapter,
    steps: Sequence[Step],
    modules: Sequence[ModuleReport],
    totals: Totals,
    placebo: Sequence[PlaceboComparison],
) -> list[str]:
    """The report's first sentences."""
    sentences = [describe_adapter(adapter, totals)]
    if steps:
        sentences += describe_repair(steps, modules, totals)
        sentences += [comparison.sentence for comparison in placebo]
    elif modules:
        sentences.append(strongest(modules))
    sentences.append(NOT_MEASURED)
    return sentences


def caveats(adapter: Adapter, steps: Sequence[Step]) -> list[str]:
    """What a reader must know before leaning on the numbers."""
    found = [RECIPE]
    if any(step.type == "csu" for step in steps):
        found.append(CSU_STYLE)
    if any(step.type == "rescale" for step in steps):
        found.append(RESCALED)
    if adapter.passthrough:
        found.append(
            f"{len(adapter.passthrough)} tensors outside the LoRA matrices (saved modules, "
            f"biases or tokens) were "
            "copied byte for byte and not repaired; a backdoor can sit there too."
        )
    return found
