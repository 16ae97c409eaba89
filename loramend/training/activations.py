"""Second moments of what goes into a host's layers over a text, and of the gradients at their outputs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.hooks import RemovableHandle

from loramend.training.encode import IGNORED, Encoded
from loramend.training.host import Host

OnBatch = Callable[[Encoded], None]
Around = Callable[[int], AbstractContextManager[None]]
"""What the forward pass of a batch, told by its number, runs within."""


@dataclass(frozen=True)
class Run:
    """How a target layer takes part in a forward pass.

    name    of the layer
    times   how often it runs
    source  the same number for layers that read the same tensors, as q, k and v do
    """

    name: str
    times: int
    source: int


class _Reached(Exception):  # noqa: N818 - it ends a forward pass early, and is no error
    """Every layer asked for has run."""


@torch.no_grad()
def run_order(host: Host, batch: Encoded) -> list[Run]:
    """The target layers in the order in which they first run; those that do not run are left out."""
    read: dict[str, list[Tensor]] = {}

    def note(name: str, _layer: object, inputs: tuple[Tensor, ...]) -> None:
        read.setdefault(name, []).append(inputs[0])  # kept, so that its identity stays its own

    with _hooked(layer.register_forward_pre_hook(partial(note, name)) for name, layer in host.layers.items()):
        host.forward(batch)
    sources: dict[tuple[int, ...], int] = {}
    return [
        Run(name, len(tensors), sources.setdefault(tuple(map(id, tensors)), len(sources)))
        for name, tensors in read.items()
    ]


@torch.no_grad()
def read_inputs(
    host: Host, batch: Encoded, runs: Sequence[Run], visit: Callable[[str, Tensor], None]
) -> None:
    """Run the batch with what is mounted, no further than these layers need, and call visit(name, x (…, in))
    whenever one of them is about to run."""
    left = sum(run.times for run in runs)

    def read(name: str, _layer: object, inputs: tuple[Tensor, ...]) -> None:
        nonlocal left
        visit(name, inputs[0])
        left -= 1
        if left == 0:
            raise _Reached

    hooks = (host.layers[run.name].register_forward_pre_hook(partial(read, run.name)) for run in runs)
    with _hooked(hooks), suppress(_Reached):
        host.forward(batch)


def input_moments(
    host: Host,
    batches: Iterable[Encoded],
    runs: Sequence[Run],
    on_batch: OnBatch,
    around: Around,
) -> dict[str, Tensor]:
    """C = Σxxᵀ (in, in), float64, of the inputs x of each layer with what is mounted, over all positions that
    are no padding; by name. Layers with one source share one C. The model runs no further than it must.

    on_batch  called before each batch; what it raises passes through
    around    what each batch's forward pass runs within, such as a `Replay`'s `passing`
    """
    leaders: dict[int, str] = {}
    for run in runs:
        leaders.setdefault(run.source, run.name)
    C: dict[str, Tensor] = {}
    mask = torch.empty(0)

    def add(name: str, x: Tensor) -> None:
        if name in leading:
            _add(C, name, _rows(x, mask))

    leading = set(leaders.values())
    for number, batch in enumerate(batches):
        on_batch(batch)
        mask = batch.attention_mask.to(host.device).bool()
        with around(number):
            read_inputs(host, batch, runs, add)
    return {run.name: C[leaders[run.source]] for run in runs}


def gradient_moments(
    host: Host,
    batches: Iterable[Encoded],
    runs: Sequence[Run],
    generator: torch.Generator,
    on_batch: OnBatch,
    around: Around,
) -> dict[str, Tensor]:
    """G = Σggᵀ (out, out), float64, by name: g the gradient of its text's loss with respect to each layer's
    output, over all positions that are no padding.

    The loss is the labels' cross-entropy, a text's sum; where a text has no labels they are drawn from the
    model's own predictions, which makes G their Fisher information. Arguments as of `input_moments`.
    """
    G: dict[str, Tensor] = {}
    mask = torch.empty(0)

    def add(name: str, grad: Tensor) -> None:
        _add(G, name, _rows(grad, mask))

    def watch(name: str, _layer: object, _inputs: object, output: Tensor) -> Tensor:
        # The base is frozen: the first layer looked at is where the graph begins.
        watched = output if output.requires_grad else output.detach().requires_grad_()
        hooked: Any = watched  # torch leaves register_hook untyped
        hooked.register_hook(partial(add, name))
        return watched

    with _hooked(host.layers[run.name].register_forward_hook(partial(watch, run.name)) for run in runs):
        for number, batch in enumerate(batches):
            on_batch(batch)
            mask = batch.attention_mask.to(host.device).bool()
            with around(number), torch.enable_grad():
                loss = summed_loss(host, batch, generator)
                torch.autograd.backward(loss)
    return G


def summed_loss(host: Host, batch: Encoded, generator: torch.Generator) -> Tensor:
    """The batch's summed cross-entropy; labels of texts without any are drawn from the predictions."""
    logits = host.forward(batch).logits
    labels = batch.labels.to(host.device)
    if host.task == "causal":
        logits, labels = logits[:, :-1], labels[:, 1:]
        asked = batch.attention_mask.to(host.device)[:, 1:].bool()
        unknown = (labels == IGNORED).all(dim=1, keepdim=True) & asked  # (n, length - 1)
    else:
        unknown = labels == IGNORED  # (n,)
    flat, known = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    if bool(unknown.any()):
        known = torch.where(unknown.reshape(-1), _drawn(flat.detach(), generator), known)
    return F.cross_entropy(flat, known, ignore_index=IGNORED, reduction="sum")


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A class (n,) for each row of logits (n, classes), drawn on the CPU so that devices agree."""
    points = torch.rand(logits.shape[0], 1, generator=generator).to(logits.device)
    held = logits.softmax(dim=1).cumsum(dim=1)
    return (held < points * held[:, -1:]).sum(dim=1).clamp_max(logits.shape[1] - 1)


def _rows(x: Tensor, mask: Tensor) -> Tensor:
    """The rows (m, d) of x (n, length, d) that are no padding; of x (n·length, d) likewise, and all of x
    (n, d): a layer that reads one vector a text has no padding."""
    if x.shape[:-1] == mask.shape:
        return x.detach()[mask]
    flat = x.detach().reshape(-1, x.shape[-1])
    if flat.shape[0] == mask.numel():
        return flat[mask.reshape(-1)]
    return flat


def _add(sums: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """Add Σxxᵀ over rows x (m, d). On the CPU products are float64; elsewhere float32, their sum float64."""
    if rows.device.type == "cpu":
        x = rows.double().numpy()
        gram = torch.from_numpy(x.T @ x)  # numpy sees the symmetry and does half of what torch would
    else:
        rows = rows.float()
        gram = (rows.mT @ rows).double()
    if name in sums:
        sums[name] += gram
    else:
        sums[name] = gram


@contextmanager
def _hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield
