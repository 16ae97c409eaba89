"""Where each update lies in an adapter's file: found from names and shapes, used to read and to write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["linear", "embedding", "conv", "parameter"]
Format = Literal["peft", "kohya", "diffusers"]
Split = Literal["none", "experts", "groups"]


@dataclass(frozen=True)
class ModuleLayout:
    """One LoRA module of a file, which holds one update, or one for each expert or convolution group.

    name        of the module (for a parameter, of the parameter), without the format's prefixes
    a_key, b_key  tensors A and B, as they are written
    a_shape, b_shape  as stored
    rank        r as the format counts it: of one expert; of all groups together
    split       what A and B divide into: nothing; `count` experts, A (count·r, in) and B (out, r·count);
                `count` groups of a convolution, A (r, in, *kernel) and B (out, r/count, 1, …)
    scale       s as read; None until the tensor alpha_key is read, where that holds it
    alpha_key   the scalar that holds alpha, where the format has one
    bias_key    lora_B's bias, where there is one
    weight      name of the tensor in the base model, as far as the file tells
    transposed  the base stores it as (in, out)
    rank_names  by which a loader looks up rank and alpha: modules with the same ones share one rank
    """

    name: str
    kind: Kind
    a_key: str
    b_key: str
    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]
    rank: int
    weight: str
    scale: float | None
    split: Split = "none"
    count: int = 1
    alpha_key: str | None = None
    bias_key: str | None = None
    transposed: bool = False
    rank_names: tuple[str, ...] = ()

    @property
    def update_names(self) -> tuple[str, ...]:
        """Update.name of each update: the module's own, or with [expert] or [group] behind it."""
        if self.split == "none":
            return (self.name,)
        return tuple(f"{self.name}[{index}]" for index in range(self.count))


@dataclass(frozen=True)
class Layout:
    """All of a file.

    stored       key as written -> key as found, where they differ (an adapter's name inside PEFT's keys)
    passthrough  keys of the tensors that no method touches, lora_B biases among them
    features     handled features in use
    """

    format: Format
    weights_file: str
    modules: tuple[ModuleLayout, ...]
    passthrough: tuple[str, ...]
    features: tuple[str, ...]
    stored: Mapping[str, str] = field(default_factory=dict)

    def in_file(self, key: str) -> str:
        """The name under which a tensor lies in the file that was read."""
        return self.stored.get(key, key)
