"""What an adapter is: a set of low-rank updates, and everything around them that is carried along
untouched."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from loramend.adapter.layout import Format, Kind, Layout


@dataclass(frozen=True)
class Update:
    """One low-rank update ΔW = s·BA of one weight matrix, ΔW being (out, in).

    Convolutions are flattened: in = in_channels · kernel size. Embeddings: out = embedding_dim,
    in = num_embeddings. A MoE parameter gives one Update an expert, name[expert]. A grouped convolution gives
    one a group, name[group]: PEFT's A sees all in_channels, so these ΔW have no counterpart in the base
    weight (feature grouped_conv). For a MoE parameter the file does not say whether the base stores (out, in)
    or (in, out): `transposed` stays False and whoever knows the base's shape decides.

    A        (r, in), float32 (float64 where the file holds float64)
    B        (out, r), likewise
    scale    s
    dtype    the dtype in the file, in which the result is written back
    weight   name of the tensor in the base model that this update is added to, e.g.
    `model.layers.0.q_proj.weight`
    transposed  the base stores that weight as (in, out): Conv1D (fan_in_fan_out) and embeddings
    expert   index into the base tensor's first dimension; None outside MoE parameters
    """

    name: str
    kind: Kind
    A: Tensor
    B: Tensor
    scale: float
    dtype: torch.dtype
    weight: str
    transposed: bool = False
    expert: int | None = None

    @property
    def rank(self) -> int:
        return int(self.A.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of ΔW."""
        return int(self.B.shape[0]), int(self.A.shape[1])

    def with_factors(self, B: Tensor, A: Tensor, scale: float) -> "Update":
        """The same module with other factors; B (out, r'), A (r', in)."""
        if B.shape[0] != self.B.shape[0] or A.shape[1] != self.A.shape[1] or B.shape[1] != A.shape[0]:
            raise ValueError(
                f"{self.name}: factors {tuple(B.shape)} x {tuple(A.shape)} do not fit {self.shape}"
            )
        return replace(self, A=A, B=B, scale=scale)


@dataclass(frozen=True)
class Adapter:
    """An adapter as read.

    updates      by Update.name, in the file's order
    passthrough  tensors that no method touches, by their key in the file, in their own dtype:
                 modules_to_save, bias tensors, trainable tokens, lora_B's biases
    config       adapter_config.json as read (empty for formats without one)
    layout       what the writer of this format needs to put the tensors back; see that format's module
    features     handled features in use, for the report
    files        (path, sha256, size) of every file read
    """

    name: str
    format: Format
    updates: Mapping[str, Update]
    passthrough: Mapping[str, Tensor]
    config: Mapping[str, Any]
    layout: Layout
    features: tuple[str, ...] = ()
    files: tuple[tuple[str, str, int], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def base_model(self) -> str | None:
        """The base model the adapter's own config names; unchecked."""
        value = self.config.get("base_model_name_or_path")
        return value if isinstance(value, str) and value else None

    def with_updates(self, changed: Mapping[str, Update]) -> "Adapter":
        """A copy in which the named updates are replaced."""
        unknown = changed.keys() - self.updates.keys()
        if unknown:
            raise KeyError(f"not in this adapter: {sorted(unknown)}")
        return replace(self, updates={name: changed.get(name, old) for name, old in self.updates.items()})
