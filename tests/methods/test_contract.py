"""What every method keeps to, whatever its mathematics."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
import torch

from loramend.adapter.model import Update
from loramend.contracts.steps import STEP_MODELS, STEPS, Step
from loramend.methods.base import Outcome
from loramend.methods.registry import METHODS
from loramend.reference.models import Subspace
from loramend.spectrum import krylov
from tests.support_references import DenseReferences, exact_subspace
from tests.support_updates import LargestTensor, dense, make_adapter, make_context, make_update, make_weights

Case = dict[str, str | int | float]

CASES: list[Case] = [
    {"type": "csu", "k": 3},
    {"type": "csu", "attenuate": "outside", "sides": "both", "k": 3},
    {"type": "csu", "sides": "both", "k": 3},
    {"type": "csu", "form": "direction", "sides": "left"},
    {"type": "csu", "attenuate": "outside", "sides": "both", "output_rank": "double", "k": 3},
    {"type": "safe_lora", "tau": 0.9},
    {"type": "safe_lora", "select": "number", "count": 2},
    {"type": "rescale", "layers": 1},
    {"type": "rescale", "layers": "all", "mode": "cap"},
    {"type": "intruders"},
    {"type": "restore", "k": 2},
    {"type": "restore", "k": 2, "output_rank": "same"},
    {"type": "shrink"},
    {"type": "random_subspace", "k": 3},
]


def step(case: Case) -> Step:
    return STEPS.validate_python(case)


def updates() -> list[Update]:
    """Different shapes and scales, one stored transposed, one zero, one of rank above its smaller side."""
    made = [
        make_update("model.layers.0.q_proj", (24, 18), 4, seed=0),
        make_update("model.layers.0.v_proj", (12, 18), 4, seed=1, scale=0.3),
        make_update("model.layers.1.q_proj", (24, 18), 4, seed=2, scale=-1.0),
        make_update("model.layers.2.up_proj", (40, 18), 2, seed=3, size=3.0),
        make_update("model.layers.2.c_attn", (30, 16), 4, seed=4, transposed=True),
        make_update("lm_head", (3, 18), 5, seed=5),
    ]
    zero = make_update("model.layers.2.q_proj", (24, 18), 4)
    return [*made, replace(zero, B=torch.zeros_like(zero.B))]


def references(made: Sequence[Update]) -> DenseReferences:
    return DenseReferences(make_weights(made, seed=1), make_weights(made, seed=2))


def run(case: Case, made: Sequence[Update]) -> dict[str, Outcome]:
    outcomes = list(
        METHODS[str(case["type"])](make_adapter(made), step(case), make_context(references(updates())))
    )
    assert len(outcomes) == len(made)
    return {outcome.name: outcome for outcome in outcomes}


def test_every_step_has_its_method() -> None:
    reads_weights = {name for name, model in STEP_MODELS.items() if model.text is None}
    assert METHODS.keys() == reads_weights
    assert STEP_MODELS.keys() - reads_weights == {"clean_subspace", "rora"}
    assert {case["type"] for case in CASES} == METHODS.keys()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_outcome_an_update_and_inputs_untouched(case: Case) -> None:
    made = updates()
    copies = [(update.A.clone(), update.B.clone(), update.scale) for update in made]
    outcomes = run(case, made)
    assert outcomes.keys() == {update.name for update in made}
    assert any(outcome.applied for outcome in outcomes.values())
    for update, (A, B, scale) in zip(made, copies, strict=True):
        assert torch.equal(update.A, A)
        assert torch.equal(update.B, B)
        assert update.scale == scale
        outcome = outcomes[update.name]
        assert outcome.update.shape == update.shape
        assert outcome.update.A.dtype == torch.float32
        assert outcome.update.A.isfinite().all()
        assert outcome.update.B.isfinite().all()
        if outcome.applied:
            assert not torch.equal(dense(outcome.update), dense(update)) or case["type"] == "shrink"
        else:
            assert outcome.update is update
            assert outcome.reason


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_order_of_modules_does_not_matter(case: Case) -> None:
    made = updates()
    forward, backward = run(case, made), run(case, made[::-1])
    for name, outcome in forward.items():
        other = backward[name]
        assert (outcome.applied, outcome.reason, outcome.values) == (
            other.applied,
            other.reason,
            other.values,
        )
        assert torch.equal(dense(outcome.update), dense(other.update))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rank_is_kept_unless_asked_otherwise(case: Case) -> None:
    made = updates()
    grown = case.get("output_rank") == "double" or (
        case["type"] == "restore" and case.get("output_rank") != "same"
    )
    for update, outcome in zip(made, (run(case, made)[update.name] for update in made), strict=True):
        if not grown or not outcome.applied:
            assert outcome.update.rank == update.rank
        else:
            extra = update.rank if case["type"] == "csu" else outcome.values["k"]
            assert outcome.update.rank == update.rank + extra


class GivenSubspaces(DenseReferences):
    """References whose subspaces are at hand, so that no weight is needed."""

    def __init__(self, made: Update) -> None:
        super().__init__({}, {})
        out, in_ = made.shape
        V = torch.linalg.qr(torch.randn(in_, 3, generator=torch.Generator().manual_seed(1))).Q
        left = exact_subspace(torch.randn(out, 3, generator=torch.Generator().manual_seed(2)), 3)
        self._subspace = replace(left, V=V)

    def base_spectrum(self, update: Update, k: int) -> Subspace:
        return self._subspace

    def displacement_subspace(
        self, update: Update, *, k: int | None = None, energy: float = 0.9, max_k: int = 64
    ) -> Subspace:
        return self._subspace


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["type"] not in ("safe_lora", "intruders")], ids=str
)
def test_methods_in_factor_space_make_nothing_of_the_updates_size(case: Case) -> None:
    update = make_update("model.layers.0.q_proj", (60_000, 50_000), 2, size=0.01)
    params = step({**case, "k": 3}) if case["type"] == "random_subspace" else step(case)
    context = make_context(GivenSubspaces(update))
    with LargestTensor() as made:
        (outcome,) = METHODS[params.type](make_adapter([update]), params, context)
    assert outcome.applied or case.get("mode") == "cap"
    assert made.elements <= 60_000 * 8


@pytest.mark.parametrize("case", [{"type": "safe_lora", "tau": 1}, {"type": "intruders"}], ids=str)
def test_methods_that_read_a_weight_form_neither_update_nor_sum(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(krylov, "BLOCK_ELEMENTS", 1 << 16)  # W is turned to float64 in parts of this size
    update = make_update("model.layers.0.q_proj", (1000, 1000), 2)
    W, D = torch.randn(2, 1000, 1000, generator=torch.Generator().manual_seed(0))

    class AtHand(GivenSubspaces):
        def base(self, update: Update) -> torch.Tensor:
            return W

        def displacement(self, update: Update) -> torch.Tensor:
            return D

    params = step(case)
    with LargestTensor(known=[W]) as made:
        (outcome,) = METHODS[params.type](make_adapter([update]), params, make_context(AtHand(update)))
    assert outcome.applied
    assert made.elements < 1000 * 1000


def test_steps_union_and_registry_agree() -> None:
    members = get_args(get_args(Step)[0])
    assert {model.model_fields["type"].default for model in members} == STEP_MODELS.keys()


@pytest.mark.parametrize("model", STEP_MODELS.values())
def test_every_step_says_where_it_is_from_and_what_it_does(model: type[Step]) -> None:
    assert model.source
    assert model.does
