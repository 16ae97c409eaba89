"""LoraLinear's two readings of dropout, and dropout itself."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from loramend.spectrum.factored import Factors
from loramend.training.dropout import dropout
from loramend.training.lora_linear import LoraLinear, Reading, Trainable

OUT, IN = 12, 20


def make_layer(*, conv: bool = False, bias: bool = True) -> LoraLinear:
    torch.manual_seed(0)
    conv1d: Any = Conv1D
    base: nn.Module = conv1d(OUT, IN) if conv else nn.Linear(IN, OUT, bias=bias)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.normal_()
    return LoraLinear(base.requires_grad_(False), transposed=conv)


def factors(seed: int, scale: float = 0.5) -> Factors:
    source = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(OUT, 3, generator=source), torch.randn(3, IN, generator=source), scale)


def dense(X: Factors) -> torch.Tensor:
    return X.scale * X.B @ X.A


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("shape", [(IN,), (4, IN), (2, 3, IN)])
def test_sum_of_its_parts(conv: bool, shape: tuple[int, ...]) -> None:
    layer = make_layer(conv=conv)
    frozen, added, top = factors(1), factors(2), factors(3)
    layer.mount(frozen, added, Trainable(top.A, top.B, 2.0), torch.full((OUT,), 0.25))
    x = torch.randn(shape)
    W = layer.W + dense(frozen) + dense(added) + 2.0 * top.B @ top.A
    assert layer.bias is not None
    expected = x @ W.mT + layer.bias + 0.25
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert (layer.in_features, layer.out_features) == (IN, OUT)


@pytest.mark.parametrize("conv", [False, True])
def test_merged_it_is_the_same_until_the_next_mount(conv: bool) -> None:
    layer = make_layer(conv=conv)
    frozen, added, top = factors(1), factors(2), factors(3)
    x = torch.randn(5, IN)
    parts = frozen, added, Trainable(top.A, top.B, 2.0), torch.full((OUT,), 0.25)
    layer.mount(*parts)
    expected = layer(x)
    W = layer.W.clone()
    layer.merge(torch.bfloat16)
    torch.testing.assert_close(layer(x), expected, atol=0, rtol=0)  # x is float32: as it was
    layer.merge(torch.float32)
    assert not layer(x).requires_grad
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.W, W, atol=0, rtol=0)
    layer.mount(*parts)
    torch.testing.assert_close(layer(x), expected, atol=0, rtol=0)
    layer.merge(torch.float32)
    layer.mount(None, None, None, None)
    assert layer.bias is not None
    torch.testing.assert_close(layer(x), x @ W.mT + layer.bias, atol=1e-5, rtol=1e-5)


def test_output_dropout_spares_the_bias_and_what_is_beside_the_frozen_path() -> None:
    layer = make_layer().train()
    layer.p = 1 - 2**-16  # as good as everything
    frozen, added, top = factors(1), factors(2), factors(3)
    trained = Trainable(top.A, top.B, 1.0)
    layer.mount(frozen, added, trained, None)
    x = torch.randn(5, IN)
    torch.manual_seed(1)
    assert layer.bias is not None
    expected = x @ (dense(added) + top.B @ top.A).mT + layer.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reading", ["output", "weight"])
def test_frozen_dropout_keeps_the_mean(reading: Reading) -> None:
    layer = make_layer().train()
    layer.p, layer.reading = 0.2, reading
    layer.mount(factors(1), None, None, None)
    x = torch.randn(IN)
    torch.manual_seed(2)
    mean = torch.stack([layer(x) for _ in range(4000)]).mean(0)
    product = x @ (layer.W + dense(factors(1))).mT
    assert layer.bias is not None
    # Standard error of the mean: |Wx|·√(p/(1-p)/n) for outputs; of weights, with |W·x| in its place.
    size = product.abs() if reading == "output" else ((layer.W + dense(factors(1))) * x).norm(dim=1)
    assert bool(((mean - product - layer.bias).abs() < 6 * size * (0.25 / 4000) ** 0.5 + 1e-4).all())


def test_weight_dropout_is_one_draw_for_all_rows() -> None:
    layer = make_layer(bias=False).train()
    layer.p, layer.reading = 0.5, "weight"
    x = torch.randn(1, IN)
    y = layer(torch.cat([x, 2 * x, -x]))
    torch.testing.assert_close(y, y[0] * torch.tensor([[1.0], [2.0], [-1.0]]))
    layer.reading = "output"
    y = layer(torch.cat([x, x]))
    assert not torch.equal(y[0] == 0, y[1] == 0)


def test_dropped_output_passes_its_gradient() -> None:
    layer = make_layer().train()
    layer.p = 0.3
    x = torch.randn(6, IN, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    product = x.detach() @ layer.W.mT
    kept = (y.detach() - layer.bias) / product  # 0 or 1/(1 - p)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, kept @ layer.W, atol=1e-4, rtol=1e-4)


@given(p=st.floats(0.01, 0.99), n=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_dropout_zeroes_or_scales(p: float, n: int, seed: int) -> None:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    y = dropout(x, p)
    scaled = (y / x)[y != 0]
    torch.testing.assert_close(scaled, torch.full_like(scaled, 1 / (1 - p)), rtol=2e-3, atol=0)
    torch.manual_seed(seed)
    assert torch.equal(dropout(x, p), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_adds_what_is_beside_it_in_its_dtype(dtype: torch.dtype) -> None:
    x, plus = torch.randn(50, 8).to(dtype), torch.randn(8)
    torch.manual_seed(0)
    expected = dropout(x, 0.3) + plus.to(dtype)
    torch.manual_seed(0)
    torch.testing.assert_close(dropout(x, 0.3, plus), expected, atol=2**-7, rtol=2**-7)


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share(p: float) -> None:
    torch.manual_seed(3)
    n = 200_003
    dropped = float((dropout(torch.ones(n), p) == 0).float().mean())
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5
    neighbours = (dropout(torch.ones(n), p) == 0).float()
    together = float((neighbours[1:] * neighbours[:-1]).mean())
    assert abs(together - p * p) < 5 * p / n**0.5
