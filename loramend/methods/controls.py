"""The placebo controls: a subspace repair beside changes of the same size that know nothing of the model.

shrink            the whole update scaled to the repaired norm
random_subspace   what the step does, with random directions in the displacement's place, DRAWS times:
                  csu        the same correction on random subspaces of each module's k
                  safe_lora  B projected on a random subspace of as many output directions as hold 90% of the
                             displacement's energy (at most 64), in the modules it projected, each module
                             scaled to its repaired norm
                  restore    the displacement's singular values on random directions
                  clean_subspace  the same projection, or attenuation, with random directions in the place
                             of the activations' (and gradients')

Source: arXiv 2605.10575, whose audit of Safe LoRA found plain shrinking. By weights alone, a repair X of ΔW
counts as indistinguishable where

- its change X - ΔW has a cosine with ΔW of at least SAME either way, so that the whole update was scaled, or
- it looks like one draw more: it moved as far as they, within two standard deviations or SIZE, and its mean
  cosine with them is at least SAME, or lies within two standard deviations, or one part in a hundred, of the
  draws' mean cosine with one another.

Cosines and norms are taken over all modules, from summed inner products in float64. This compares weights;
what a repair does to a model's behaviour, an evaluation of the draws can tell.
"""

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from statistics import fmean as mean
from statistics import stdev
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.data_steps import CleanSubspaceStep
from loramend.contracts.report import Control, PlaceboComparison
from loramend.contracts.steps import CsuStep, RestoreStep, SafeLoraStep
from loramend.methods.base import Context, refactored
from loramend.methods.clean_subspace import confine
from loramend.methods.correction import correct
from loramend.methods.random_subspace import random_pair
from loramend.methods.restore import add, leading
from loramend.spectrum.factored import Factored, Factors, gram, norm, same

DRAWS = 5
SAME = 0.99
SIZE = 0.05
SubspaceRepair = CsuStep | SafeLoraStep | RestoreStep | CleanSubspaceStep
NO_CHANGE = 1e-7
"""Relative distance at or under which a step changed nothing: what inner products in float64 resolve."""


class Placebo(NamedTuple):
    """A step beside its controls; draws: the random control's updates, one mapping by name a draw."""

    comparison: PlaceboComparison
    draws: list[dict[str, Update]]


def compare(
    step_index: int,
    params: SubspaceRepair,
    before: Mapping[str, Update],
    after: Mapping[str, Update],
    values: Mapping[str, Mapping[str, float]],
    context: Context,
    on_module: Callable[[str], None],
    *,
    keep: bool = False,
) -> Placebo:
    """Set a subspace step beside its two controls.

    before, after  the updates the step was given and those it returned, by name
    values         what the step reports of each module: csu's and clean_subspace's k are read there, where
                   they changed the module
    on_module      called with each module's name once it is done
    keep           give the draws too, not their comparison alone
    """
    # Inner products among the original, the repair and the draws.
    G = torch.zeros(2 + DRAWS, 2 + DRAWS, dtype=torch.float64)
    kept: list[dict[str, Update]] = [{} for _ in range(DRAWS if keep else 0)]
    for original in context.references.in_order(before.values()):
        repaired = after[original.name]
        draws = _draws(step_index, params, original, repaired, values[original.name], context)
        G += gram([original, repaired, *draws]).cpu()
        for updates, draw in zip(kept, draws, strict=False):
            updates[original.name] = draw if isinstance(draw, Update) else _as_update(original, draw)
        on_module(original.name)
    return Placebo(_compared(step_index, params.type, G), kept)


def _as_update(original: Update, draw: Factored) -> Update:
    return refactored(original, Factors(draw.B, draw.A, draw.scale))


def _draws(
    step_index: int,
    params: SubspaceRepair,
    original: Update,
    repaired: Update,
    values: Mapping[str, float],
    context: Context,
) -> list[Factored]:
    """The random control's results for one module; the original itself where the step left it alone."""
    if same(original, repaired):
        return [original] * DRAWS
    seeds = [f"control {step_index} {draw}" for draw in range(DRAWS)]
    if isinstance(params, CsuStep):
        k = int(values["k"])
        return [
            correct(original, *random_pair(original, k, context.seed, seed), params).factors for seed in seeds
        ]
    if isinstance(params, CleanSubspaceStep):
        return [_confined(original, params, values, context.seed, seed) for seed in seeds]
    if isinstance(params, SafeLoraStep):
        k = context.references.displacement_subspace(original).k
        target = norm(repaired)
        return [
            _projected(original, random_pair(original, k, context.seed, seed)[0], target) for seed in seeds
        ]
    subspace = context.references.displacement_subspace(
        original, k=params.k, energy=params.energy, max_k=params.max_k
    )
    return [
        add(
            original,
            leading(subspace, *random_pair(original, subspace.k, context.seed, seed), params.alpha),
            params,
        )[0]
        for seed in seeds
    ]


def _confined(
    update: Update, params: CleanSubspaceStep, values: Mapping[str, float], seed: int, name: str
) -> Update:
    """clean_subspace on random directions, as many as it found on each side."""
    inputs, outputs = (int(values.get(key, 0)) for key in ("k", "k_output"))
    V = random_pair(update, inputs, seed, name, "inputs")[1] if inputs else None
    U = random_pair(update, outputs, seed, name, "outputs")[0] if outputs else None
    return confine(update, U, V, params).update


def _projected(update: Update, U: Tensor, target: Tensor) -> Factors:
    """U(UᵀB)A, scaled to the norm `target`."""
    B = U @ (U.mT @ update.B.double())
    projected = Factors(B, update.A.double(), update.scale)
    size = norm(projected)
    return projected._replace(B=B * (target / size.where(size > 0, 1.0)))


def _compared(step: int, type_: str, G: Tensor) -> PlaceboComparison:
    """The comparison from the inner products G (2 + DRAWS, 2 + DRAWS) of original, repair and draws."""
    original, repair, *draws = range(len(G))
    norms = G.diagonal().clamp_min(0.0).sqrt().tolist()

    def cosine(i: int, j: int) -> float:
        size = norms[i] * norms[j]
        return max(-1.0, min(1.0, float(G[i, j]) / size)) if size else 0.0

    def distance(i: int) -> float:
        squared = float(G[i, i] - 2 * G[i, original] + G[original, original])
        return math.sqrt(max(0.0, squared)) / norms[original] if norms[original] else 0.0

    def ratio(i: int) -> float:
        return norms[i] / norms[original] if norms[original] else 0.0

    defined = norms[original] > 0 and norms[repair] > 0
    to_original = cosine(repair, original) if defined else None
    distances = [distance(i) for i in draws]
    to_repair = [cosine(i, repair) for i in draws]
    shrink = Control(
        name="shrink",
        draws=1,
        distance=abs(ratio(repair) - 1.0) if norms[original] else 0.0,
        distance_sd=None,
        norm_ratio=ratio(repair),
        cosine_to_original=1.0 if defined else None,
        cosine_to_repair=to_original,
    )
    random = Control(
        name="random_subspace",
        draws=DRAWS,
        distance=mean(distances),
        distance_sd=stdev(distances),
        norm_ratio=mean(ratio(i) for i in draws),
        cosine_to_original=mean(cosine(i, original) for i in draws) if defined else None,
        cosine_to_repair=mean(to_repair),
        cosine_to_repair_sd=stdev(to_repair),
    )
    changed = distance(repair) > NO_CHANGE or (norms[repair] > 0 and norms[original] == 0)
    size = distance(repair) * norms[original]
    along = float(G[repair, original] - G[original, original]) / (size * norms[original]) if size else None
    beside = _Draws(
        cosine=mean(to_repair),
        among=[cosine(i, j) for i, j in combinations(draws, 2)],
        distance=distance(repair),
        distances=distances,
    )
    whose = "clean text's" if type_ == "clean_subspace" else "aligned model's"
    verdict, sentence = _verdict(changed, along, beside, whose)
    return PlaceboComparison(
        step=step,
        type=type_,
        distance=distance(repair),
        norm_ratio=ratio(repair),
        cosine_to_original=to_original,
        controls=[shrink, random],
        verdict=verdict,
        sentence=sentence,
    )


class _Draws(NamedTuple):
    """The repair beside the random draws: its mean cosine with them, theirs with one another, and how far it
    moved, and they did."""

    cosine: float
    among: list[float]
    distance: float
    distances: list[float]

    @property
    def one_more(self) -> bool:
        """Whether the repair looks like one draw more."""
        size, among = mean(self.distances), mean(self.among)
        as_far = abs(self.distance - size) <= max(2 * stdev(self.distances), SIZE * size)
        alike = abs(self.cosine - among) <= max(2 * stdev(self.among), (1 - SAME) * abs(among))
        return as_far and (alike or self.cosine >= SAME)


def _verdict(
    changed: bool, along: float | None, draws: _Draws, whose: str
) -> tuple[Literal["indistinguishable_by_weights", "distinct_by_weights", "no_change"], str]:
    """The rule of this module's docstring, and its outcome in one sentence."""
    if not changed:
        return "no_change", "The step changed nothing, so there is nothing to compare."
    if along is not None and abs(along) >= SAME:
        return "indistinguishable_by_weights", (
            "By weights alone the repair hardly differs from scaling the whole update (cosine of its change "
            f"{along:.4f}): nothing here shows that the {whose} directions mattered."
        )
    random = (
        f"cosine {draws.cosine:.4f} with them, {mean(draws.among):.4f} ± {stdev(draws.among):.4f} among "
        f"them, moved {draws.distance:.3f}, they {mean(draws.distances):.3f}"
    )
    if draws.one_more:
        return "indistinguishable_by_weights", (
            f"By weights alone the repair hardly differs from one on random subspaces ({random}): "
            f"nothing here shows that the {whose} directions mattered."
        )
    scaling = f"from plain scaling (cosine of its change {along:.4f}) and " if along is not None else ""
    return "distinct_by_weights", (
        f"By weights the repair differs {scaling}from the same change on random subspaces ({random}); "
        "whether the model behaves better for it, weights cannot tell."
    )
