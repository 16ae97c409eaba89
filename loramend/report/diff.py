"""Two adapters compared, module by module, in factor space."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from loramend.adapter.model import Adapter, Update
from loramend.contracts.diff import AdapterDiff, DiffTotals, ModuleDiff, Side
from loramend.contracts.job import OnProgress, Progress, silent
from loramend.contracts.report import BaseComparison
from loramend.reference.models import References
from loramend.reference.open import open_references
from loramend.report.provenance import Stopwatch
from loramend.report.summary import adapter_summary
from loramend.report.words import moved
from loramend.spectrum.factored import Svd, cosine, distance, inner, norm, same, svd
from loramend.spectrum.measures import ALIGNMENT_K, base_comparison, spectrum
from loramend.spectrum.overlap import RANK_TOLERANCE

_SHOWN = 3
_ROUNDING = 1e-3
_ALIKE = 0.9995  # a cosine from here on is told as 1.000


def diff(
    a: Adapter,
    b: Adapter,
    references: References | None = None,
    *,
    device: str | torch.device = "cpu",
    on_progress: OnProgress = silent,
    source: Mapping[str, str] | None = None,
) -> AdapterDiff:
    """Compare the modules that both have; matched by name.

    references  the base model to measure both against, if any
    Raises ReferenceModelError where it does not fit.
    """
    watch = Stopwatch()
    references = references or open_references(None, None)
    common = [name for name in a.updates if name in b.updates]
    other_shape = [name for name in common if a.updates[name].shape != b.updates[name].shape]
    pairs = {name: (a.updates[name], b.updates[name]) for name in common if name not in other_shape}
    if references.has_base:
        references.check(update for update, _ in pairs.values())
    apart = {name: _distance(*pair) for name, pair in pairs.items()}
    found: dict[str, ModuleDiff] = {}
    for done, update in enumerate(references.in_order(first for first, _ in pairs.values()), 1):
        found[update.name] = _compare(*pairs[update.name], apart[update.name], references)
        on_progress(Progress(phase="measure", done=done, total=len(pairs), detail=update.name))
    modules = [found[name] for name in pairs]
    totals = _totals(a, b, pairs, list(apart.values()))
    only_a = [name for name in a.updates if name not in b.updates]
    only_b = [name for name in b.updates if name not in a.updates]
    return AdapterDiff(
        summary=_sentences(totals, modules, only_a, only_b, other_shape),
        a=adapter_summary(a),
        b=adapter_summary(b),
        totals=totals,
        modules=modules,
        only_a=only_a,
        only_b=only_b,
        other_shape=other_shape,
        references=references.read(),
        provenance=watch.provenance(device=torch.device(device), seed=0, source=source or {}),
    )


def _compare(a: Update, b: Update, apart: float, references: References) -> ModuleDiff:
    usv_a, usv_b = svd(a), svd(b)
    base_a = base_b = None
    if references.has_base:
        base = references.base_spectrum(a, ALIGNMENT_K)
        base_a, base_b = base_comparison(usv_a, a.scale, base), base_comparison(usv_b, b.scale, base)
    side_a, side_b = _side(a, usv_a, base_a), _side(b, usv_b, base_b)
    norm_a, norm_b = side_a.spectrum.norm, side_b.spectrum.norm
    return ModuleDiff(
        name=a.name,
        kind=a.kind,
        shape=a.shape,
        a=side_a,
        b=side_b,
        norm_ratio=norm_b / norm_a if norm_a else None,
        distance=apart / norm_a if norm_a else None,
        cosine=float(cosine(a, b)) if norm_a and norm_b else None,
        left_overlap=_overlap(usv_a.U, usv_a.S, usv_b.U, usv_b.S),
        right_overlap=_overlap(usv_a.V, usv_a.S, usv_b.V, usv_b.S),
    )


def _side(update: Update, usv: Svd, base: BaseComparison | None) -> Side:
    return Side(
        rank=update.rank,
        scale=update.scale,
        dtype=str(update.dtype).removeprefix("torch."),
        spectrum=spectrum(usv.S),
        base=base,
    )


def _distance(a: Update, b: Update) -> float:
    """‖ΔB - ΔA‖, exactly 0 for the same factors, whose difference rounding would not let vanish."""
    return 0.0 if same(a, b) else float(distance(a, b))


def _overlap(X: Tensor, x: Tensor, Y: Tensor, y: Tensor) -> float | None:
    """‖XᵀY‖_F²/min(rank) over the columns whose singular values count; X (n, m), x (m,)."""
    if not len(x) or not len(y) or x[0] == 0 or y[0] == 0:
        return None
    X, Y = X[:, x > RANK_TOLERANCE * x[0]], Y[:, y > RANK_TOLERANCE * y[0]]
    return min(1.0, float((X.mT @ Y).square().sum()) / min(X.shape[1], Y.shape[1]))


def _totals(
    a: Adapter, b: Adapter, pairs: Mapping[str, tuple[Update, Update]], apart: list[float]
) -> DiffTotals:
    def size(updates: Iterable[Update]) -> float:
        return math.hypot(*(float(norm(update)) for update in updates))

    own_a, own_b = size(first for first, _ in pairs.values()), size(second for _, second in pairs.values())
    dot = sum(float(inner(*pair)) for pair in pairs.values())
    return DiffTotals(
        common=len(pairs),
        identical=sum(each == 0 for each in apart),
        norm_a=size(a.updates.values()),
        norm_b=size(b.updates.values()),
        distance=math.hypot(*apart) / own_a if own_a else None,
        cosine=max(-1.0, min(1.0, dot / (own_a * own_b))) if own_a and own_b else None,
    )


def _sentences(
    totals: DiffTotals,
    modules: list[ModuleDiff],
    only_a: list[str],
    only_b: list[str],
    other_shape: list[str],
) -> list[str]:
    told = [f"{totals.common} modules are in both, {len(only_a)} in A alone and {len(only_b)} in B alone."]
    if other_shape:
        told.append(
            f"{len(other_shape)} of one name differ in shape and were not compared: "
            "A and B are not of one base model."
        )
    if not totals.common:
        told.append("Nothing can be compared: A and B name no module alike.")
        return told
    if totals.identical == totals.common:
        told.append("In the modules compared A and B are the same, to the last bit.")
    elif totals.distance is not None and totals.cosine is not None:
        told.append(
            f"Over the modules in both, B lies {moved(totals.distance)} A's norm away from A; their cosine "
            f"is {totals.cosine:.3f}. {_alike(totals, modules)}"
        )
        known = [(module.cosine, module.name) for module in modules if module.cosine is not None]
        least = [(value, name) for value, name in sorted(known)[:_SHOWN] if value < _ALIKE]
        named = ", ".join(f"{name} ({value:.3f})" for value, name in least)
        if named:
            told.append(f"The smallest cosines: {named}.")
    told.append("This compares weights: it cannot say how the two behave, or which of them is sound.")
    return told


def _alike(totals: DiffTotals, modules: list[ModuleDiff]) -> str:
    """How many modules are the same, and how many would be but for rounding."""
    near = sum(each.distance is not None and 0 < each.distance < _ROUNDING for each in modules)
    told = f"{totals.identical} of {totals.common} modules are the same to the last bit"
    if near:
        told += f"; {near} more differ by less than {_ROUNDING:.1%} of A's norm, as rounding does"
    return f"{told}."
