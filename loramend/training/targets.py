"""The modules of a live model that an adapter's updates are for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from loramend.adapter.model import Update
from loramend.adapter.quote import quote
from loramend.contracts.errors import ReferenceModelError
from loramend.reference.names import Names
from loramend.training.lora_linear import LoraLinear


@dataclass(frozen=True)
class OwnParameter:
    """A parameter of the model itself: where it hangs."""

    owner: nn.Module
    attribute: str
    parameter: nn.Parameter


def own_parameters(model: nn.Module) -> Iterator[tuple[str, OwnParameter]]:
    """All of them by name; a tied one under each of its names."""
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module.named_parameters(recurse=False):
            yield f"{path}.{attribute}" if path else attribute, OwnParameter(module, attribute, parameter)


def wrap_targets(
    model: nn.Module, updates: Mapping[str, Update], own: Mapping[str, OwnParameter], names: Names
) -> dict[str, LoraLinear]:
    """Put a LoraLinear in the place of every module that an update is for; by Update.name.

    Raises ReferenceModelError `reference_mismatch` where no linear layer of its name and shape is there.
    """
    from transformers.pytorch_utils import Conv1D

    layers: dict[str, LoraLinear] = {}
    wrapped: dict[nn.Module, LoraLinear] = {}
    for update in updates.values():
        fitting = []
        for name in names.like(update.weight):
            owner, weight = own[name].owner, own[name].parameter
            shape = weight.shape[::-1] if isinstance(owner, Conv1D) else weight.shape
            if isinstance(owner, nn.Linear | Conv1D) and tuple(shape) == update.shape:
                fitting.append(name)
        if len(fitting) != 1:
            what = "several linear layers" if fitting else "no linear layer"
            raise ReferenceModelError(
                "reference_mismatch",
                f"The base model as transformers loads it has {what} for {quote(update.weight)} of shape "
                f"{list(update.shape)}. Give the model the adapter was trained on.",
                where=update.name,
            )
        base = own[fitting[0]].owner
        if base not in wrapped:
            wrapped[base] = LoraLinear(base, transposed=isinstance(base, Conv1D))
            wrapped[base].train(base.training)
        layers[update.name] = wrapped[base]
    for module in list(model.modules()):
        for child, inner in list(module.named_children()):
            if inner in wrapped:
                setattr(module, child, wrapped[inner])
    return layers
