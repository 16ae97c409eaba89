"""The placebo controls: their figures against dense sums, and verdicts where the truth is known."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
import torch

from loramend.adapter.model import Update
from loramend.contracts.data_steps import CleanSubspaceStep
from loramend.contracts.report import PlaceboComparison
from loramend.contracts.steps import CsuStep, RestoreStep, SafeLoraStep
from loramend.methods.clean_subspace import confine
from loramend.methods.controls import DRAWS, compare
from loramend.methods.correction import correct
from loramend.methods.random_subspace import random_pair
from loramend.methods.registry import METHODS
from tests.support_references import DenseReferences
from tests.support_updates import dense, make_adapter, make_context, make_update, make_weights

Params = CsuStep | SafeLoraStep | RestoreStep
SEED = 3


def low_rank(update: Update, k: int, seed: int, size: float = 3.0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    out, in_ = update.shape
    return size * torch.randn(out, k, generator=source) @ torch.randn(k, in_, generator=source)


def take(
    params: Params, updates: list[Update], references: DenseReferences
) -> tuple[PlaceboComparison, Mapping[str, Update], list[str]]:
    seen: list[str] = []
    adapter, context = make_adapter(updates), make_context(references, SEED)
    outcomes = list(METHODS[params.type](adapter, params, context))
    after = {outcome.name: outcome.update for outcome in outcomes}
    values = {outcome.name: outcome.values for outcome in outcomes}
    compared = compare(2, params, adapter.updates, after, values, context, seen.append)
    assert compared.draws == []
    return compared.comparison, after, seen


def unrelated(n: int = 3, shape: tuple[int, int] = (300, 250)) -> tuple[list[Update], DenseReferences]:
    """Updates that have nothing to do with the displacement."""
    updates = [make_update(f"m.layers.{i}.q", shape, 4, seed=i) for i in range(n)]
    base = make_weights(updates)
    aligned = {u.weight: base[u.weight] + low_rank(u, 8, 50 + i) for i, u in enumerate(updates)}
    return updates, DenseReferences(base, aligned)


def related(inside: float = 1.0) -> tuple[list[Update], DenseReferences]:
    """Updates half of whose directions are the displacement's own."""
    updates, references = unrelated()
    made = []
    for update in updates:
        subspace = references.displacement_subspace(update, k=4)
        B, A = update.B.clone(), update.A.clone()
        B[:, :2] = inside * subspace.U[:, :2] * B.norm() / 2
        A[:2] = subspace.V[:, :2].mT * A.norm() / 2
        made.append(update.with_factors(B, A, update.scale))
    return made, references


def test_figures_are_those_of_dense_sums() -> None:
    updates, references = unrelated(2, (30, 25))
    params = CsuStep(k=5, penalty=8.0, attenuate="outside")
    result, after, seen = take(params, updates, references)
    assert seen == [update.name for update in updates]
    original = torch.cat([dense(update).flatten() for update in updates])
    repair = torch.cat([dense(after[update.name]).flatten() for update in updates])
    draws = []
    for draw in range(DRAWS):
        parts = [
            correct(update, *random_pair(update, 5, SEED, f"control 2 {draw}"), params).factors
            for update in updates
        ]
        draws.append(torch.cat([(part.B @ part.A).flatten() for part in parts]))

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    assert result.step == 2
    assert result.distance == pytest.approx(float((repair - original).norm() / original.norm()), rel=1e-5)
    assert result.norm_ratio == pytest.approx(float(repair.norm() / original.norm()), rel=1e-5)
    assert result.cosine_to_original == pytest.approx(cosine(repair, original), rel=1e-5)
    shrink, random = result.controls
    assert shrink.norm_ratio == pytest.approx(result.norm_ratio)
    assert shrink.distance == pytest.approx(1 - result.norm_ratio)
    assert shrink.cosine_to_repair == result.cosine_to_original
    to_repair = torch.tensor([cosine(draw, repair) for draw in draws])
    distances = torch.stack([(draw - original).norm() / original.norm() for draw in draws])
    assert random.draws == DRAWS
    assert random.cosine_to_repair == pytest.approx(float(to_repair.mean()), rel=1e-5)
    assert random.cosine_to_repair_sd == pytest.approx(float(to_repair.std()), rel=1e-2)
    assert random.distance == pytest.approx(float(distances.mean()), rel=1e-5)
    assert random.distance_sd == pytest.approx(float(distances.std()), rel=1e-2)
    among = torch.tensor([cosine(a, b) for a, b in combinations(draws, 2)])
    assert f"{among.mean():.4f}" in result.sentence


@pytest.mark.parametrize(
    ("form", "attenuate", "like"),
    [
        ("component", "outside", "scaling the whole update"),
        ("component", "inside", "random subspaces"),
        ("direction", "outside", "scaling the whole update"),
        ("direction", "inside", "scaling the whole update"),
    ],
)
def test_csu_on_an_unrelated_update_is_its_placebo_and_says_so(form: Any, attenuate: Any, like: str) -> None:
    params = CsuStep(k=8, form=form, attenuate=attenuate, sides="both")
    result, _, _ = take(params, *unrelated())
    assert result.verdict == "indistinguishable_by_weights"
    assert like in result.sentence


@pytest.mark.parametrize(
    "params",
    [
        CsuStep(k=4),
        CsuStep(k=4, penalty=0.1),
        CsuStep(k=4, attenuate="outside", sides="both"),
        SafeLoraStep(tau=1),
        RestoreStep(k=4),
    ],
    ids=str,
)
def test_a_repair_that_uses_the_displacement_is_distinct(params: Params) -> None:
    result, _, _ = take(params, *related())
    assert result.verdict == "distinct_by_weights"
    assert "cannot tell" in result.sentence


def test_safe_lora_on_a_random_displacement_is_one_draw_more() -> None:
    """A displacement with equal singular values is a random subspace itself."""
    updates, _ = unrelated()
    base = make_weights(updates)
    aligned = {}
    for i, update in enumerate(updates):
        D = low_rank(update, 8, 90 + i)
        U, _, Vh = torch.linalg.svd(D, full_matrices=False)
        aligned[update.weight] = base[update.weight] + 40 * U[:, :8] @ Vh[:8]
    result, _, _ = take(SafeLoraStep(tau=1), updates, DenseReferences(base, aligned))
    assert result.verdict == "indistinguishable_by_weights"
    assert "random subspaces" in result.sentence


def test_controls_change_as_much_as_the_repair() -> None:
    updates, references = related()
    for params in (SafeLoraStep(tau=1), RestoreStep(k=4)):
        result, _, _ = take(params, updates, references)
        shrink, random = result.controls
        assert shrink.norm_ratio == pytest.approx(result.norm_ratio)
        if params.type == "safe_lora":
            assert random.norm_ratio == pytest.approx(result.norm_ratio, rel=1e-5)
        else:
            assert random.distance == pytest.approx(result.distance, rel=1e-5)


def test_modules_left_alone_stay_so_in_the_controls() -> None:
    updates, references = related()
    some, after, _ = take(SafeLoraStep(select="number", count=1), updates, references)
    (chosen,) = (update for update in updates if after[update.name] is not update)
    alone, _, _ = take(SafeLoraStep(tau=1), [chosen], references)
    share = float(dense(chosen).norm() / torch.stack([dense(u).norm() for u in updates]).norm())
    assert some.controls[1].distance == pytest.approx(alone.controls[1].distance * share, rel=1e-6)
    none, _, _ = take(SafeLoraStep(tau=-1), updates, references)
    assert none.verdict == "no_change"
    assert none.controls[1].distance == 0


def test_sentences_never_claim_safety() -> None:
    for given in (unrelated(), related()):
        for params in (CsuStep(k=4), SafeLoraStep(), RestoreStep(k=4)):
            result, _, _ = take(params, *given)
            assert not {"safe", "clean", "removed", "secure"} & set(result.sentence.lower().split())


def test_order_of_modules_does_not_matter() -> None:
    updates, references = related()
    forward, _, _ = take(CsuStep(k=4), updates, references)
    backward, _, _ = take(CsuStep(k=4), updates[::-1], references)
    assert forward.distance == pytest.approx(backward.distance, rel=1e-12)
    assert forward.controls[1].distance == pytest.approx(backward.controls[1].distance, rel=1e-12)
    assert forward.verdict == backward.verdict


def test_kept_draws_are_the_adapters_that_were_compared() -> None:
    updates, references = related()
    params = CsuStep(k=4)
    adapter, context = make_adapter(updates), make_context(references, SEED)
    outcomes = list(METHODS["csu"](adapter, params, context))
    after = {outcome.name: outcome.update for outcome in outcomes}
    values = {outcome.name: outcome.values for outcome in outcomes}
    found = compare(0, params, adapter.updates, after, values, context, lambda _: None, keep=True)
    assert len(found.draws) == DRAWS
    for draw, by_name in enumerate(found.draws):
        for update in updates:
            alike = correct(update, *random_pair(update, 4, SEED, f"control 0 {draw}"), params).factors
            torch.testing.assert_close(dense(by_name[update.name]), alike.B @ alike.A, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "params",
    [CleanSubspaceStep(k=4), CleanSubspaceStep(k=4, form="smooth", penalty=5.0, side="both")],
    ids=["hard", "smooth"],
)
def test_clean_subspace_is_set_beside_random_directions_of_its_rank(params: CleanSubspaceStep) -> None:
    updates, references = unrelated()
    context = make_context(references, SEED)
    told = {"k": 3.0, "k_output": 3.0} if params.side == "both" else {"k": 3.0}
    after = {}
    for update in updates:
        V = torch.linalg.qr(update.A.double().mT).Q[:, :3]  # most of its own inputs
        U = torch.linalg.qr(update.B.double()).Q[:, :3] if params.side == "both" else None
        after[update.name] = confine(update, U, V, params).update
    before = {update.name: update for update in updates}
    values = dict.fromkeys(before, told)
    found = compare(0, params, before, after, values, context, lambda _: None, keep=True)
    assert found.comparison.verdict == "distinct_by_weights"
    assert "aligned" not in found.comparison.sentence
    random = found.comparison.controls[1]
    assert random.norm_ratio < 0.5 * found.comparison.norm_ratio
    if params.form == "hard":
        every = [dense(draw[update.name]) for draw in found.draws for update in updates]
        assert {int(torch.linalg.matrix_rank(matrix, rtol=1e-5)) for matrix in every} == {3}
