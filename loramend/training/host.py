"""A base model that runs with any adapter mounted, by exchanging pointers."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from loramend.adapter.model import Adapter, Update
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError, RequestError
from loramend.data.examples import Example
from loramend.reference.names import Names
from loramend.spectrum.factored import Factors
from loramend.training.encode import Encoded, Item, Labels, collate, encode
from loramend.training.load import Dtype, Task, load_model
from loramend.training.lora_linear import LoraLinear, Reading, Trainable
from loramend.training.mount import Mount, passthrough_names
from loramend.training.targets import OwnParameter, own_parameters, wrap_targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MERGED_MOST = 2**28
"""Numbers that merged copies of the target layers' weights hold at most: 1 GiB of float32."""

TASKS: Mapping[str, Task] = {"SEQ_CLS": "classification", "CAUSAL_LM": "causal"}


@dataclass(frozen=True)
class Output:
    """logits: (n, classes), or (n, length, vocabulary) of a causal model; float32. hidden_states: embeddings
    and every layer's output, (n, length, width) each, in the model's dtype; None unless asked for."""

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None


class _Slot(NamedTuple):
    """What one layer gets."""

    layer: LoraLinear
    frozen: Factors | None
    added: Factors | None
    trained: Trainable | None
    offset: Tensor | None


@dataclass(frozen=True)
class _Placed:
    """A mount on the host's device, by place."""

    slots: tuple[_Slot, ...]
    tensors: tuple[tuple[OwnParameter, Tensor], ...]


class Host:
    """A frozen base model whose target layers take low-rank updates, and its tokenizer.

    Several adapters (teacher and student) share it and are mounted in turn. With gradient checkpointing the
    layers run again in backward, with whatever is mounted then: keep the student mounted until after it.

    task       what the model does
    module     the model, in eval mode
    tokenizer  with a padding token
    device     where the model is
    layers     the target layers, by Update.name
    labels     the classes of a classifier; None for a causal model
    amp        whether `forward` takes its products in bfloat16 where it is asked to be fast
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        updates: Mapping[str, Update],
        *,
        task: Task,
        device: torch.device,
        amp: bool = False,
    ) -> None:
        """Wraps the updates' modules in place. Raises as `open_host` does."""
        self.task: Task = task
        self.amp = amp
        self.tokenizer = tokenizer
        self.device = device
        self._own = dict(own_parameters(model))
        self._names = Names(self._own)
        self.layers: Mapping[str, LoraLinear] = wrap_targets(model, updates, self._own, self._names)
        self.module: nn.Module = model
        nn.Module.to(model, device)  # transformers annotates its decorator, not `to`
        self.labels = Labels.of(model.config) if task == "classification" else None
        self._placed: WeakKeyDictionary[Mount, _Placed] = WeakKeyDictionary()
        self._mounted: Mount | None = None
        self._replaced: list[OwnParameter] = []
        self._cast: set[nn.Module] = set()

    @property
    def pad(self) -> int:
        """The padding token's id."""
        pad = self.tokenizer.pad_token_id
        assert isinstance(pad, int)
        return pad

    def encode(self, examples: Sequence[Example], max_length: int) -> list[Item]:
        """The examples as tokens; raises as encode.encode does."""
        return encode(self.tokenizer, examples, self.task, max_length, self.labels)

    def collate(self, items: Sequence[Item]) -> Encoded:
        """One batch, padded on the right, on the host's device."""
        return collate(items, self.pad).to(self.device)

    def mount(self, mount: Mount | None) -> None:
        """Run with this adapter from now on; None is the bare base model.

        A mount is placed once and remembered: its mappings must not change afterwards, its parameters may.
        Raises AdapterError `config_unsupported` for a tensor that is no parameter of the model,
        KeyError for an update of no target layer.
        """
        placed = self._place(mount) if mount is not None else None
        for own in self._replaced:
            own.owner._parameters[own.attribute] = own.parameter
        self._replaced = []
        if placed is None:
            for layer in self.layers.values():
                layer.mount(None, None, None, None)
        else:
            for slot in placed.slots:
                slot.layer.mount(slot.frozen, slot.added, slot.trained, slot.offset)
            for own, tensor in placed.tensors:
                # As it is: a Parameter made of it would be another leaf.
                vars(own.owner)["_parameters"][own.attribute] = tensor
                self._replaced.append(own)
        self._mounted = mount

    @contextmanager
    def mounted(self, mount: Mount | None) -> Iterator[None]:
        """Run with this adapter inside the block, and with what was mounted before after it."""
        before = self._mounted
        self.mount(mount)
        try:
            yield
        finally:
            self.mount(before)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Inside the block, until something else is mounted, what is mounted now is folded into the weights,
        which spares every layer's low-rank products: for reading many batches, not for training. Equal up to
        rounding; done for float32 weights on a CPU, while the copies are small."""
        weights = [layer.weight for layer in self.layers.values()]
        wide = all(weight.dtype == torch.float32 for weight in weights)
        small = sum(weight.numel() for weight in weights) <= _MERGED_MOST
        try:
            if wide and small and self.device.type == "cpu":
                for layer in self.layers.values():
                    layer.merge(torch.bfloat16 if self.amp else torch.float32)
            yield
        finally:
            self.mount(self._mounted)

    @contextmanager
    def training(self, *, own_dropout: bool = True) -> Iterator[None]:
        """Training mode inside the block: the frozen path's and LoRA's dropout, gradient checkpointing, and
        with `own_dropout` the model's own dropout."""
        self.module.train()
        if not own_dropout:
            for module in self.module.modules():
                checkpoints = getattr(module, "gradient_checkpointing", False)
                module.training = isinstance(module, LoraLinear) or bool(checkpoints)
        try:
            yield
        finally:
            self.module.eval()

    def frozen_dropout(self, p: float, reading: Reading = "output") -> None:
        """Dropout on the frozen path of every target layer, in training mode alone; 0 is off."""
        for layer in self.layers.values():
            layer.p, layer.reading = p, reading

    @torch.no_grad()
    def embed(self, ids: Tensor) -> Tensor:
        """What the model's embeddings with what is mounted give for tokens of any shape: (..., width)."""
        found = self._embeddings()(ids.to(self.device))
        assert isinstance(found, Tensor)
        return found.detach()  # gradient checkpointing has the embeddings' output require a gradient

    @property
    def vocabulary(self) -> int:
        """How many tokens have embeddings."""
        return int(self._embeddings().num_embeddings)

    def forward(
        self,
        batch: Encoded,
        *,
        hidden: bool = False,
        fast: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Run the batch with what is mounted; padding is masked.

        fast      in mixed precision where the host was opened for it (`amp`)
        embedded  (n, length, width), read in the place of what `embed` gives for the batch's tokens
        """
        with self._reading(embedded):
            out = self._run(batch, fast, {"output_hidden_states": hidden})
        return Output(out.logits.float(), tuple(out.hidden_states) if hidden else None)

    def next_logits(self, batch: Encoded, *, fast: bool = False) -> Tensor:
        """(n, vocabulary) of the token that follows each text of a causal model's batch, padded on the left;
        `fast` as in `forward`."""
        wanted = {"position_ids": (batch.attention_mask.cumsum(-1) - 1).clamp(min=0), "logits_to_keep": 1}
        # Some models tell positions by the mask, or give all logits: they take no such argument.
        taken = inspect.signature(self.module.forward).parameters
        out = self._run(batch, fast, {name: value for name, value in wanted.items() if name in taken})
        last: Tensor = out.logits[:, -1]
        return last.float()

    def _run(self, batch: Encoded, fast: bool, arguments: Mapping[str, Any]) -> Any:
        causal = {"use_cache": False} if self.task == "causal" else {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast and self.amp):
            return self.module(
                input_ids=batch.input_ids.to(self.device),
                attention_mask=batch.attention_mask.to(self.device),
                return_dict=True,
                **causal,
                **arguments,
            )

    def parameter(self, name: str) -> tuple[str, nn.Parameter]:
        """The model's own parameter that `name` means, and its exact name.

        Raises AdapterError `config_unsupported` where there is none, or several.
        """
        found = self._names.like(name)
        if len(found) != 1:
            what = "No parameter of the model is" if not found else "Several parameters of the model may be"
            raise AdapterError(
                "config_unsupported",
                f"{what} meant by the adapter's tensor {quote(name)}. Steps that run the model take heads "
                "and biases of modules the model has.",
                where=name,
            )
        return found[0], self._own[found[0]].parameter

    def _embeddings(self) -> Any:
        model: Any = self.module
        return model.get_input_embeddings()

    @contextmanager
    def _reading(self, embedded: Tensor | None) -> Iterator[None]:
        """With these in the place of what the embeddings give. The tokens go in as well: models tell by them
        where a text ends."""
        if embedded is None:
            yield
            return
        handle = self._embeddings().register_forward_hook(lambda *_: embedded)
        try:
            yield
        finally:
            handle.remove()

    def _place(self, mount: Mount) -> _Placed:
        if mount not in self._placed:
            given = {*mount.frozen, *mount.added, *mount.trained, *mount.offsets}
            if unknown := given - self.layers.keys():
                raise KeyError(f"no target layers of this host: {sorted(unknown)}")
            slots = tuple(
                _Slot(
                    layer,
                    self._factors(mount.frozen.get(name)),
                    self._factors(mount.added.get(name)),
                    mount.trained.get(name),
                    self._moved(mount.offsets.get(name)),
                )
                for name, layer in self.layers.items()
            )
            tensors = tuple(self._own_tensor(name, tensor) for name, tensor in mount.tensors.items())
            self._placed[mount] = _Placed(slots, tensors)
        return self._placed[mount]

    def _factors(self, X: Factors | None) -> Factors | None:
        if X is None:
            return None
        B, A = (M.to(self.device, torch.float32) for M in (X.B, X.A))
        return Factors(B, A, float(X.scale))

    def _moved(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self.device, torch.float32)

    def _own_tensor(self, name: str, tensor: Tensor) -> tuple[OwnParameter, Tensor]:
        exact, parameter = self.parameter(name)
        if tensor.shape != parameter.shape:
            raise AdapterError(
                "config_unsupported",
                f"The adapter's {quote(name)} is {list(tensor.shape)} but the base model's is "
                f"{list(parameter.shape)}. Give the model the adapter was trained on.",
                where=name,
            )
        own = self._own[exact]
        if tensor.dtype != parameter.dtype and tensor.dtype != torch.float32:
            tensor = tensor.to(parameter.dtype)
        if tensor.dtype != parameter.dtype and own.owner not in self._cast:
            _run_in_own_dtype(own.owner, parameter.dtype)
            self._cast.add(own.owner)
        return own, tensor.to(self.device)


def open_host(
    folder: Path,
    adapter: Adapter,
    *,
    task: Task | None = None,
    dtype: Dtype = "float32",
    device: str | torch.device = "cpu",
    gradient_checkpointing: bool = False,
    amp: bool = False,
) -> Host:
    """The base model in a folder, ready for this adapter and others of its target modules; nothing mounted.

    task   from the adapter's task_type where None
    dtype  of the base weights
    amp    mixed precision where the device is faster for it and dtype is float32

    Raises RequestError `method_unsupported` for another task, AdapterError `method_unsupported` for a target
    that is no linear layer, `config_unsupported` for a saved tensor the model has no place for,
    ReferenceModelError `reference_invalid` or `reference_mismatch` for a base that cannot be loaded or lacks
    a target.
    """
    task = task or _task_of(adapter)
    for update in adapter.updates.values():
        _check_kind(update)
    names = passthrough_names(adapter)
    brought = {name: adapter.passthrough[key] for key, name in names.items()}
    on = torch.device(device)
    model, tokenizer = load_model(folder, task, brought, dtype)
    if task == "classification" and on.type == "cpu":
        # torch's fused kernel takes three times as long on a CPU for texts of some twenty tokens.
        model.set_attn_implementation("eager")
    if gradient_checkpointing:
        switchable: Any = model
        # transformers 5.23 renamed it and warns of the old name.
        old = switchable.gradient_checkpointing_enable
        getattr(switchable, "activation_checkpointing_enable", old)({"use_reentrant": False})
    mixed = amp and dtype == "float32" and fast_bfloat16(on)
    host = Host(model, tokenizer, adapter.updates, task=task, device=on, amp=mixed)
    for name, tensor in brought.items():
        host._own_tensor(name, tensor)
    return host


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    told = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    # Intel's from Sapphire Rapids on, which AVX512-FP16 marks, gain by AMX alone: where a virtual machine
    # hides it, their AVX512-BF16 takes twice as long as float32.
    return bool(told.get("amx_bf16") or (told.get("avx512_bf16") and not told.get("avx512_fp16")))


def _task_of(adapter: Adapter) -> Task:
    told = adapter.config.get("task_type")
    task = TASKS.get(told) if isinstance(told, str) else None
    if task is None:
        raise RequestError(
            "method_unsupported",
            f"The adapter's task_type is {quote(str(told))}. Steps that run the model, and evaluation, "
            "support SEQ_CLS and CAUSAL_LM.",
            where="adapter_config.json#/task_type",
        )
    return task


def _check_kind(update: Update) -> None:
    plain = update.kind == "linear" and not update.weight.endswith(".in_proj_weight")
    if not plain:
        kind = "nn.MultiheadAttention's in_proj" if update.kind == "linear" else f"of kind {update.kind}"
        raise AdapterError(
            "method_unsupported",
            f"The adapter's target is {kind}; steps that run the model handle linear layers (nn.Linear, "
            "Conv1D). Take steps that read weights alone.",
            where=update.name,
        )


def _run_in_own_dtype(owner: nn.Module, dtype: torch.dtype) -> None:
    """Let a module whose parameters may be float32 run inside a model of another dtype."""

    def before(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
        own = next(module.parameters(recurse=False)).dtype
        return tuple(x.to(own) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)

    def after(_module: nn.Module, _inputs: tuple[object, ...], output: object) -> object:
        return output.to(dtype) if isinstance(output, Tensor) else output

    owner.register_forward_pre_hook(before)
    owner.register_forward_hook(after)
