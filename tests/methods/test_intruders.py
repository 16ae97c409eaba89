"""Intruder reduction against peft's reduce_intruder_dimension on the same layers."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.intruders import reduce_intruder_dimension
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from loramend.adapter.model import Update
from loramend.contracts.steps import IntrudersStep
from loramend.methods.base import Outcome
from loramend.methods.intruders import intruders
from tests.support_references import DenseReferences
from tests.support_updates import dense, make_adapter, make_context, make_update, make_weights

LINEAR, CONV1D, EMBEDDING = "linear", "conv1d", "embedding"
SHAPES = {
    "square": (LINEAR, 48, 48),
    "tall": (LINEAR, 70, 40),
    "wide": (LINEAR, 40, 70),
    "conv1d": (CONV1D, 60, 36),
    "conv1d_wide": (CONV1D, 36, 60),
    "embedding": (EMBEDDING, 24, 80),
}


def spiked(rows: int, columns: int) -> Tensor:
    """A weight whose leading singular values stand apart, so that which directions lead is no accident."""
    U, S, Vh = torch.linalg.svd(torch.randn(rows, columns), full_matrices=False)
    return (U * S * torch.linspace(3.0, 0.3, len(S))) @ Vh


class Model(nn.Module):
    def __init__(self, kind: str, out: int, in_: int) -> None:
        super().__init__()
        if kind == LINEAR:
            self.layer: nn.Module = nn.Linear(in_, out, bias=False)
        else:
            self.layer = Conv1D(out, in_) if kind == CONV1D else nn.Embedding(in_, out)
        self.layer.weight.data = spiked(*self.layer.weight.shape)


def adapted(kind: str, out: int, in_: int, size: float) -> tuple[nn.Module, Update, Tensor]:
    """A float64 peft model with one adapted layer, the same update as ours, and the stored base weight."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["layer"], fan_in_fan_out=kind == CONV1D)
    model = get_peft_model(Model(kind, out, in_), config)
    layer = model.base_model.model.layer
    assert isinstance(layer, LoraLayer)
    if kind == EMBEDDING:
        A, B = layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]
    else:
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        A.normal_(std=size)
        B.normal_(std=size)
    update = Update(
        name="layer",
        kind="embedding" if kind == EMBEDDING else "linear",
        A=A.detach().clone(),
        B=B.detach().clone(),
        scale=1.5,
        dtype=torch.float32,
        weight="layer.weight",
        transposed=kind != LINEAR,
    )
    W = layer.get_base_layer().weight.detach().clone()
    return model.double(), update, W


def pefts(model: nn.Module, kind: str, transposed: bool, **options: float) -> tuple[Tensor, int]:
    """ΔW (out, in) after peft's reduction, and how many intruders it found.

    Where the weight is stored (in, out), peft 0.21 writes factors of the stored ΔW, turned against those it
    reads: their product is taken as it was computed, not as peft would load it.
    """
    said: list[str] = []
    reduce_intruder_dimension(model, logging_sink=said.append, **options)
    layer = model.base_model.model.layer
    if kind == EMBEDDING:
        A, B = layer.lora_embedding_A["intruder_reduced"], layer.lora_embedding_B["intruder_reduced"]
    else:
        A, B = layer.lora_A["intruder_reduced"].weight, layer.lora_B["intruder_reduced"].weight
    found = said[0].rsplit(": ", 1)[1]
    product = layer.scaling["default"] * (B @ A).detach()
    count = 0 if found == "No intruders" else int(found)
    return (product.mT if transposed and count else product), count


def ours(update: Update, W: Tensor, params: IntrudersStep) -> Outcome:
    context = make_context(DenseReferences({update.weight: W}))
    (outcome,) = intruders(make_adapter([update]), params, context)
    return outcome


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("size", "threshold", "mitigation", "top_k"),
    [(0.7, 0.5, 0.75, 10), (1.0, 0.7, 0.0, 10), (0.8, 0.9, 0.4, 3)],
)
def test_equals_peft(name: str, size: float, threshold: float, mitigation: float, top_k: int) -> None:
    kind, out, in_ = SHAPES[name]
    model, update, W = adapted(kind, out, in_, size)
    expected, count = pefts(
        model,
        kind,
        update.transposed,
        threshold_epsilon=threshold,
        mitigation_lambda=mitigation,
        top_k=top_k,
    )
    outcome = ours(update, W, IntrudersStep(threshold=threshold, mitigation=mitigation, top_k=top_k))
    assert count > 0
    assert outcome.values["intruders"] == count
    assert outcome.update.rank == 4
    assert float((dense(outcome.update) - expected).norm() / expected.norm()) <= 1e-6


@pytest.mark.parametrize("name", SHAPES)
def test_equals_peft_where_there_are_none(name: str) -> None:
    kind, out, in_ = SHAPES[name]
    model, update, W = adapted(kind, out, in_, 0.02)
    expected, count = pefts(model, kind, update.transposed)
    outcome = ours(update, W, IntrudersStep())
    assert (count, outcome.applied, outcome.values["intruders"]) == (0, False, 0)
    torch.testing.assert_close(dense(outcome.update), expected, rtol=0, atol=1e-7)


def test_equals_peft_where_the_full_svd_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight large enough for the certificates: no full set of singular vectors, and the same result."""

    def unreachable(*_: object) -> Tensor:
        raise AssertionError("all singular vectors were computed")

    monkeypatch.setattr("loramend.spectrum.overlap.largest_cosines", unreachable)
    model, update, W = adapted(LINEAR, 420, 500, 0.5)
    expected, count = pefts(model, LINEAR, False)
    outcome = ours(update, W, IntrudersStep())
    assert outcome.values["intruders"] == count > 0
    assert float((dense(outcome.update) - expected).norm() / expected.norm()) <= 1e-6


def test_what_is_reported() -> None:
    _, update, W = adapted(LINEAR, 48, 48, 0.7)
    outcome = ours(update, W, IntrudersStep())
    merged = W.double() + dense(update)
    U, S, _ = torch.linalg.svd(merged)
    base = torch.linalg.svd(W.double()).U
    best = (U.mT @ base).abs().amax(1)[:10]
    index = torch.nonzero(best < 0.5).flatten()
    count = int(outcome.values["intruders"])
    sigmas = [outcome.values[f"intruder_{i}_sigma"] for i in range(1, count + 1)]
    cosines = [outcome.values[f"intruder_{i}_cosine"] for i in range(1, count + 1)]
    assert sigmas == pytest.approx(S[index].tolist(), rel=1e-6)
    assert cosines == pytest.approx(best[index].tolist(), rel=1e-5)
    assert outcome.values["looked_at"] == 10
    assert outcome.values["residual"] <= 1e-8
    assert 0 < outcome.truncation_loss < 1


def test_left_alone() -> None:
    update = make_update(size=5.0)
    W = make_weights([update])[update.weight]
    zero = ours(replace(update, B=torch.zeros_like(update.B)), W, IntrudersStep())
    flat = ours(update, torch.zeros_like(W), IntrudersStep())
    kept = ours(update, W, IntrudersStep(mitigation=1, threshold=0.9))
    assert [outcome.applied for outcome in (zero, flat, kept)] == [False] * 3
    assert kept.values["intruders"] > 0
