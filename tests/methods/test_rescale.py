"""Spectral rescaling: the scale set, the layers chosen, the guard."""

from dataclasses import replace

import pytest
import torch

from loramend.adapter.model import Update
from loramend.contracts.errors import RequestError
from loramend.contracts.steps import RescaleStep
from loramend.methods.base import Outcome
from loramend.methods.rescale import layer_of, rescale
from tests.support_references import DenseReferences
from tests.support_updates import dense, make_adapter, make_context, make_update, make_weights


def run(updates: list[Update], params: RescaleStep) -> dict[str, Outcome]:
    context = make_context(DenseReferences(make_weights(updates)))
    return {outcome.name: outcome for outcome in rescale(make_adapter(updates), params, context)}


def test_sets_the_size_of_the_base_weight() -> None:
    update = make_update(scale=-0.01)
    sigma = float(torch.linalg.svdvals(make_weights([update])[update.weight])[0])
    outcome = run([update], RescaleStep(ratio=1.5, max_scale=1e6))[update.name]
    delta = dense(outcome.update)
    assert float(torch.linalg.svdvals(delta)[0]) == pytest.approx(1.5 * sigma, rel=1e-5)
    assert float((delta * dense(update)).sum()) > 0  # a negative scale keeps its sign
    assert outcome.values["factor"] == pytest.approx(outcome.update.scale / update.scale)


def test_cap_only_scales_down() -> None:
    small, large = make_update("h.0.a", scale=1e-4), make_update("h.0.b", scale=10.0)
    outcomes = run([small, large], RescaleStep(mode="cap"))
    assert not outcomes["h.0.a"].applied
    assert outcomes["h.0.b"].applied
    assert outcomes["h.0.b"].update.scale < 10


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.31.self_attn.q_proj", ("model.layers", 31)),
        ("transformer.h.3.attn.c_attn", ("transformer.h", 3)),
        ("bert.encoder.layer.11.output.dense", ("bert.encoder.layer", 11)),
        ("0.auto_model.encoder.layer.5.attention", ("0.auto_model.encoder.layer", 5)),
        ("decoder.block.2.layer.0.SelfAttention.q", ("decoder.block", 2)),
        ("model.layers.4.mlp.experts.7.w1", ("model.layers", 4)),
        ("transformer_blocks.9.attn.to_q", ("transformer_blocks", 9)),
        ("layers.2", ("layers", 2)),
        ("lm_head", None),
        ("classifier.0", None),
        ("model.layers.final", None),
    ],
)
def test_layer_of(name: str, place: tuple[str, int] | None) -> None:
    assert layer_of(name) == place


def test_the_last_layers_of_each_stack() -> None:
    names = [f"{stack}.block.{i}.q" for stack, n in (("encoder", 4), ("decoder", 6)) for i in range(n)]
    updates = [make_update(name, scale=0.1) for name in [*names, "lm_head"]]
    outcomes = run(updates, RescaleStep(layers=2))
    assert {name for name, outcome in outcomes.items() if outcome.applied} == {
        "encoder.block.2.q",
        "encoder.block.3.q",
        "decoder.block.4.q",
        "decoder.block.5.q",
    }
    assert "last 2 layers" in outcomes["lm_head"].reason
    everywhere = run(updates, RescaleStep(layers="all"))
    assert all(outcome.applied for outcome in everywhere.values())


def test_no_layer_index_is_refused_unless_all_are_asked_for() -> None:
    updates = [make_update("query"), make_update("value")]
    with pytest.raises(RequestError, match="layers = 'all'") as caught:
        run(updates, RescaleStep())
    assert caught.value.code == "method_unsupported"
    assert run(updates, RescaleStep(layers="all"))["query"].applied


def test_the_guard_names_module_factor_and_remedy() -> None:
    update = make_update(scale=1e-5)
    with pytest.raises(RequestError, match=r"multiply the scale of .*q_proj by .*max_scale = 100") as caught:
        run([update], RescaleStep())
    assert caught.value.code == "scale_guard"
    assert caught.value.where == update.name
    assert "ratio" in caught.value.detail


def test_zero_update_and_zero_weight_are_left_alone() -> None:
    update = make_update()
    for zero in (replace(update, B=torch.zeros_like(update.B)), replace(update, scale=0.0)):
        outcome = run([zero], RescaleStep())[update.name]
        assert not outcome.applied
        assert "zero" in outcome.reason
    flat = DenseReferences({update.weight: torch.zeros(24, 18)})
    (outcome,) = rescale(make_adapter([update]), RescaleStep(), make_context(flat))
    assert not outcome.applied
