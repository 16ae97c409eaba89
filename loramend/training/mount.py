"""Which adapter a host runs with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from loramend.adapter.model import Adapter, Update
from loramend.contracts.errors import AdapterError
from loramend.methods.draws import generator
from loramend.spectrum.factored import Factors
from loramend.training.lora_linear import Trainable

_PREFIX = "base_model.model."
_WRAPPERS = ("base_layer", "modules_to_save")


@dataclass(frozen=True, eq=False)
class Mount:
    """An adapter in the form a host runs it; updates by Update.name.

    frozen   low-rank updates in the frozen path, under its dropout
    added    fixed updates beside it, outside the dropout: an adapter as it is
    trained  updates that are trained, outside the dropout
    tensors  by the model's own parameter name, taken in its place: heads, biases. An nn.Parameter that
             requires a gradient is trained
    offsets  (out,) by Update.name, added to the layer's output: lora_B's biases times their scale
    """

    frozen: Mapping[str, Factors] = field(default_factory=dict)
    added: Mapping[str, Factors] = field(default_factory=dict)
    trained: Mapping[str, Trainable] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    offsets: Mapping[str, Tensor] = field(default_factory=dict)


def adapter_mount(adapter: Adapter) -> Mount:
    """The adapter as it is, its saved modules and biases included; equal to PEFT's model in eval mode.

    Raises AdapterError as `passthrough_tensors` does.
    """
    return Mount(
        added={name: factors_of(update) for name, update in adapter.updates.items()},
        tensors=passthrough_tensors(adapter),
        offsets=lora_offsets(adapter),
    )


def factors_of(update: Update, mix: float = 1.0) -> Factors:
    """mix·s·BA in float32; shares the update's memory where that is float32."""
    return Factors(update.B.float(), update.A.float(), mix * update.scale)


def passthrough_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Saved modules and biases by the model's own parameter name; `passthrough_names` has the keys.

    Raises AdapterError `method_unsupported` for trainable tokens.
    """
    names = passthrough_names(adapter)
    return {names[key]: tensor for key, tensor in adapter.passthrough.items() if key in names}


def passthrough_names(adapter: Adapter) -> dict[str, str]:
    """Key in the adapter's file -> the model's own parameter name, for each saved module and bias.

    Raises AdapterError `method_unsupported` for trainable tokens, which no linear layer holds.
    """
    offsets = {module.bias_key for module in adapter.layout.modules}
    names = {}
    for key in adapter.passthrough:
        # PEFT saves the biases of the modules it keeps a copy of, which nothing reads.
        if key in offsets or "original_module" in key.split("."):
            continue
        if "trainable_tokens" in key:
            raise AdapterError(
                "method_unsupported",
                "Steps that run the model do not handle trainable tokens. Take steps that read weights "
                "alone, or merge the tokens into the base model.",
                where=key,
            )
        names[key] = _own_name(key)
    return names


def lora_offsets(adapter: Adapter) -> dict[str, Tensor]:
    """lora_B's biases times the scale they were saved under, float32, by Update.name."""
    offsets = {}
    for module in adapter.layout.modules:
        if module.bias_key is not None and module.scale is not None:
            offsets[module.name] = module.scale * adapter.passthrough[module.bias_key].float()
    return offsets


def fresh(update: Update, rank: int, scale: float, seed: int, dropout: float = 0.0) -> Trainable:
    """A new update for the module: A kaiming-uniform with a = √5 (PEFT's), B zero; drawn from the seed and
    the module's name alone."""
    out, in_ = update.shape
    A = torch.empty(rank, in_)
    nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator(seed, "fresh", update.name))
    return Trainable(A, torch.zeros(out, rank), scale, dropout)


def trainable(update: Update, dropout: float = 0.0) -> Trainable:
    """The update itself, to be trained on."""
    return Trainable(update.A, update.B, update.scale, dropout)


def _own_name(key: str) -> str:
    """`base_model.model.classifier.modules_to_save.default.weight` -> `classifier.weight`."""
    parts = key.removeprefix(_PREFIX).split(".")
    if "modules_to_save" in parts:
        at = parts.index("modules_to_save")
        # An adapter's name follows, unless PEFT took it out when saving.
        named = at + 2 < len(parts) and parts[at + 1] == "default"
        del parts[at : at + 1 + named]
    return ".".join(part for part in parts if part not in _WRAPPERS)
