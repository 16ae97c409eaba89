"""From an adapter to what training changes of it, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from loramend.adapter.model import Adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import RequestError
from loramend.methods.draws import generator
from loramend.spectrum.factored import Factors
from loramend.training.host import Host
from loramend.training.lora_linear import Trainable
from loramend.training.mount import (
    Mount,
    factors_of,
    fresh,
    lora_offsets,
    passthrough_names,
    passthrough_tensors,
    trainable,
)

FRESH_SCALE = 2.0
"""s = alpha/r of a new update, as the paper's alpha = 16 at r = 8."""

_HEAD_STD = 0.02


def student(
    host: Host,
    adapter: Adapter,
    params: RoraStep,
    seed: int,
    *,
    mix: float = 0.0,
    heads: Literal["given", "new"] = "given",
) -> Mount:
    """The mount to train: the adapter's updates themselves, or new ones, as `params.start` says.

    mix    share of the adapter's updates in the frozen path, under new ones
    heads  what saved modules begin with: the adapter's, or values drawn from the seed

    Raises RequestError `method_unsupported` where a head is to be trained and the adapter has none.
    """
    trained: dict[str, Trainable] = {}
    for name, update in adapter.updates.items():
        if params.start == "given":
            trained[name] = trainable(update, params.lora_dropout)
        else:
            rank = params.rank or update.rank
            trained[name] = fresh(update, rank, FRESH_SCALE, seed, params.lora_dropout)
        trained[name].to(host.device)
    frozen = {name: factors_of(update, mix) for name, update in adapter.updates.items()} if mix else {}
    return Mount(
        frozen=frozen,
        trained=trained,
        tensors=_tensors(host, adapter, params, seed, heads),
        offsets=lora_offsets(adapter),
    )


def trained_factors(mount: Mount) -> dict[str, Factors]:
    """What the trained updates have become, by Update.name, on the CPU."""
    found = {}
    for name, module in mount.trained.items():
        B, A, scale = module.factors()
        found[name] = Factors(B.cpu(), A.cpu(), scale)
    return found


def with_heads(adapter: Adapter, mount: Mount) -> Adapter:
    """The adapter with the mount's trained heads in its file's keys and dtypes."""
    passthrough = dict(adapter.passthrough)
    for key, name in passthrough_names(adapter).items():
        tensor = mount.tensors[name]
        if tensor.requires_grad:
            passthrough[key] = tensor.detach().cpu().to(passthrough[key].dtype)
    return replace(adapter, passthrough=passthrough)


def _tensors(
    host: Host, adapter: Adapter, params: RoraStep, seed: int, heads: Literal["given", "new"]
) -> Mapping[str, Tensor]:
    tensors = passthrough_tensors(adapter)
    if params.head == "keep":
        return tensors
    names = [name for name in tensors if _is_head(name, adapter)]
    if not names:
        raise RequestError(
            "method_unsupported",
            "The adapter saves no task head (modules_to_save), so there is none to train: take head 'keep'.",
            where="rora.head",
        )
    for name in names:
        tensor = _drawn(name, tensors[name], seed) if heads == "new" else tensors[name]
        tensors[name] = nn.Parameter(tensor.to(host.device, torch.float32, copy=True))
    return tensors


def _is_head(name: str, adapter: Adapter) -> bool:
    """Whether a tensor belongs to a module of modules_to_save, and is no bias trained beside LoRA."""
    saved = adapter.config.get("modules_to_save") or []
    padded = f".{name}."
    return any(f".{module}." in padded for module in saved if isinstance(module, str))


def _drawn(name: str, tensor: Tensor, seed: int) -> Tensor:
    """A new layer's values: small weights, no bias, a norm's gains at one."""
    if tensor.dim() < 2:
        return torch.zeros(tensor.shape) if name.endswith("bias") else torch.ones(tensor.shape)
    return _HEAD_STD * torch.randn(tensor.shape, generator=generator(seed, "head", name))
