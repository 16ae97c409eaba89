"""Updates and adapters with random factors, built in memory, and what tests ask of methods that take them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from loramend.adapter.layout import Layout
from loramend.adapter.model import Adapter, Update
from loramend.methods.base import Context
from loramend.reference.models import References
from tests.support_references import DenseReferences


def make_update(
    name: str = "model.layers.0.q_proj",
    shape: tuple[int, int] = (24, 18),
    rank: int = 4,
    *,
    scale: float = 2.0,
    seed: int = 0,
    size: float = 1.0,
    transposed: bool = False,
) -> Update:
    """A Gaussian update whose factors have entries of variance `size`."""
    source = torch.Generator().manual_seed(seed)
    out, in_ = shape
    return Update(
        name=name,
        kind="linear",
        A=size * torch.randn(rank, in_, generator=source),
        B=size * torch.randn(out, rank, generator=source),
        scale=scale,
        dtype=torch.float32,
        weight=f"{name}.weight",
        transposed=transposed,
    )


def make_adapter(updates: Iterable[Update]) -> Adapter:
    return Adapter(
        name="test",
        format="peft",
        updates={update.name: update for update in updates},
        passthrough={},
        config={},
        layout=Layout("peft", "adapter_model.safetensors", modules=(), passthrough=(), features=()),
    )


def make_weights(updates: Iterable[Update], *, seed: int = 0, size: float = 1.0) -> dict[str, Tensor]:
    """Random weights for these updates, as a checkpoint stores them."""
    source = torch.Generator().manual_seed(seed)
    weights = {}
    for update in updates:
        out, in_ = update.shape
        stored = (in_, out) if update.transposed else (out, in_)
        weights[update.weight] = size * torch.randn(*stored, generator=source)
    return weights


def make_context(references: References | None = None, seed: int = 0) -> Context:
    return Context(references=references or DenseReferences(), device=torch.device("cpu"), seed=seed)


def dense(update: Update) -> Tensor:
    """ΔW (out, in), float64."""
    return update.scale * update.B.double() @ update.A.double()


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor any operation makes, views of `known` tensors aside."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        untyped: Any = super()
        untyped.__init__()
        self.elements = 0
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() not in self._known:
                self.elements = max(self.elements, value.numel())
        return result
