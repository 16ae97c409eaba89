"""Forward passes that begin where the last one over the same batch had got to.

A step that reads a model's layers group by group, in the order in which they run, needs for each group what
the blocks before it hand on. Those blocks do not change any more, so that each need not run again for every
later group: the output of the last of them is kept, batch by batch, and it and the blocks before it return
that output in the next group's pass instead of computing. Every block then runs twice over the texts (once to
be read, once as it became) instead of once for each later group. Embeddings, masks and all else outside the
blocks are computed anew.

This is right only for a model whose blocks see nothing of earlier ones but what the last one returned.
Whether it is so is not looked up but tried, see `replay_of`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from loramend.training.activations import Run, read_inputs
from loramend.training.checkpoint import tensors_digest
from loramend.training.encode import Encoded
from loramend.training.host import Host

KEPT_BYTES = 2 << 30
"""Of outputs kept, over all batches. Batches beyond it run from their beginning."""
TRIED_TEXTS = 2

_MISHANDLED = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What a model may raise whose blocks return what it does not expect."""

_Value = Tensor | tuple[Tensor | None, ...]
_Forward = Callable[..., object]


@dataclass(frozen=True)
class _Block:
    """A member of one of the model's lists of blocks; `stack` is the list's number."""

    module: nn.Module
    stack: int


@dataclass(frozen=True)
class _Kept:
    """What a stack's blocks up to the one at `position` return."""

    position: int
    output: _Value


class Replay:
    """Passes over the same batches for one group of layers after another.

    blocks  in the order in which they run
    keeps   by group: for each stack the position in `blocks` of its last block to return before the group's
            first layer runs
    """

    def __init__(self, blocks: Sequence[_Block] = (), keeps: Sequence[Mapping[int, int]] = ()) -> None:
        """Without blocks all passes are plain ones."""
        self._blocks = blocks
        self._keeps = keeps
        self._kept: dict[int, dict[int, _Kept]] = {}
        self._left = KEPT_BYTES

    @contextmanager
    def passing(self, group: int, batch: int) -> Iterator[None]:
        """Run the batch of that number once within this, at least up to the group's first layer.

        Groups come in order; one may have several passes. What is mounted on layers that run before the
        group's first must be the same from its first pass on.
        """
        kept = self.take(batch)
        wanted = self._keeps[group] if self._blocks else {}
        fresh = {stack: one for stack, one in kept.items() if wanted.get(stack) == one.position}

        def step(position: int, forward: _Forward, *args: object, **kwargs: object) -> object:
            stack = self._blocks[position].stack
            if stack in kept and position <= kept[stack].position:
                return _copy(kept[stack].output)  # the model may write to it
            output = forward(*args, **kwargs)
            if wanted.get(stack) == position and (value := _copy(output)) is not None:
                fresh[stack] = _Kept(position, value)
            return output

        with _substituted([block.module for block in self._blocks], step):
            yield
        self.give(batch, fresh)

    def take(self, batch: int) -> dict[int, _Kept]:
        """What is kept for a batch, by stack; it is no longer kept."""
        kept = self._kept.pop(batch, {})
        self._left += _size(kept)
        return kept

    def give(self, batch: int, kept: dict[int, _Kept]) -> None:
        """Keep this for a batch that nothing is kept for, if there is room."""
        size = _size(kept)
        if size <= self._left:
            self._left -= size
            self._kept[batch] = kept


@torch.no_grad()
def replay_of(host: Host, groups: Sequence[Sequence[Run]], batch: Encoded) -> Replay:
    """A Replay for these groups of layers, in the order in which they first run, if what they read comes out
    the same bit by bit; else one whose passes are plain.

    That is tried here with what is mounted, on the first texts of `batch`: every group's pass beginning where
    the pass before it would have left off, compared with a whole one. A block that runs several times, a
    connection that skips blocks or a state kept inside of one shows in the first pass that depends on it. All
    trials together run each block a few times.
    """
    if len(groups) < 2:
        return Replay()
    few = Encoded(*(x[:TRIED_TEXTS] for x in (batch.input_ids, batch.attention_mask, batch.labels)))
    whole = _whole_pass(host, groups, few)
    if whole is None or not any(whole.keeps):
        return Replay()
    try:
        same = _same(host, groups, few, whole)
    except _MISHANDLED:
        same = False
    return Replay(whole.blocks, whole.keeps) if same else Replay()


@dataclass(frozen=True)
class _Whole:
    """What a pass from the beginning shows: blocks and keeps as of `Replay`, the blocks' outputs, and digests
    of the layers' inputs by name."""

    blocks: Sequence[_Block]
    keeps: Sequence[Mapping[int, int]]
    outputs: Sequence[_Value]
    inputs: Mapping[str, Sequence[str]]

    def replay_after(self, group: int) -> Replay:
        """As the passes up to the group's leave it, for one batch of number 0."""
        replay = Replay(self.blocks, self.keeps)
        kept = self.keeps[group].items()
        replay.give(0, {stack: _Kept(position, self.outputs[position]) for stack, position in kept})
        return replay


def _whole_pass(host: Host, groups: Sequence[Sequence[Run]], batch: Encoded) -> _Whole | None:
    """None where a block runs twice, or returns what cannot be kept."""
    blocks = _blocks(host)
    outputs: dict[int, _Value] = {}
    unfit = False

    def step(index: int, forward: _Forward, *args: object, **kwargs: object) -> object:
        nonlocal unfit
        output = forward(*args, **kwargs)
        value = _copy(output)
        if index in outputs or value is None:
            unfit = True
        else:
            outputs[index] = value
        return output

    inputs: dict[str, list[str]] = {}
    returned: dict[str, int] = {}

    def visit(name: str, x: Tensor) -> None:
        returned.setdefault(name, len(outputs))
        inputs.setdefault(name, []).append(_digest(x))

    with _substituted([block.module for block in blocks], step):
        read_inputs(host, batch, [run for group in groups for run in group], visit)
    if unfit:
        return None
    ran = [blocks[index] for index in outputs]
    # A group none of whose layers these texts reach (experts) keeps nothing.
    firsts = [
        min((returned[run.name] for run in group if run.name in returned), default=0) for group in groups
    ]
    keeps = [{block.stack: position for position, block in enumerate(ran[:first])} for first in firsts]
    return _Whole(ran, keeps, list(outputs.values()), inputs)


def _same(host: Host, groups: Sequence[Sequence[Run]], batch: Encoded, whole: _Whole) -> bool:
    """Whether each group's pass, begun where the one before it left off, finds what the whole pass found; and
    a last pass the model's end, which gradients come from."""
    logits = _digest(host.forward(batch).logits)
    # What a block may keep inside must not be these texts' where the pass that writes it is left out: hence
    # another text, and after it the last group first, as a pass writes for those behind it.
    host.forward(Encoded(batch.input_ids.flip(1), batch.attention_mask, batch.labels))
    last = len(groups) - 1
    with whole.replay_after(last).passing(last, 0):
        if _digest(host.forward(batch).logits) != logits:
            return False
    for number in range(last, 0, -1):
        inputs: dict[str, list[str]] = {}
        replay = whole.replay_after(number - 1)
        with replay.passing(number, 0):
            read_inputs(host, batch, groups[number], partial(_note, inputs))
        if inputs != {run.name: whole.inputs[run.name] for run in groups[number] if run.name in whole.inputs}:
            return False
        kept = {one.position: _digest(one.output) for one in replay.take(0).values()}
        if kept != {position: _digest(whole.outputs[position]) for position in whole.keeps[number].values()}:
            return False
    return True


def _note(inputs: dict[str, list[str]], name: str, x: Tensor) -> None:
    inputs.setdefault(name, []).append(_digest(x))


def _blocks(host: Host) -> list[_Block]:
    """The members of the outermost lists of several modules that hold target layers."""
    targets = set(host.layers.values())
    found: list[_Block] = []
    stacks = 0

    def search(module: nn.Module) -> None:
        nonlocal stacks
        for child in module.children():
            members = dict.fromkeys(child) if isinstance(child, nn.ModuleList) else {}
            if len(members) < 2:
                search(child)
            elif targets & set(child.modules()):
                found.extend(_Block(member, stacks) for member in members)
                stacks += 1

    search(host.module)
    return found


@contextmanager
def _substituted(modules: Sequence[nn.Module], step: Callable[..., object]) -> Iterator[None]:
    """step(index, forward, *args, **kwargs) in the place of each module's forward(*args, **kwargs)."""
    with ExitStack() as undo:
        for index, module in enumerate(modules):
            own = vars(module)
            if "forward" in own:  # as accelerate's hooks put it there
                undo.callback(own.__setitem__, "forward", own["forward"])
            else:
                undo.callback(own.pop, "forward")
            own["forward"] = partial(step, index, module.forward)
        yield


def _copy(output: object) -> _Value | None:
    """A copy that nothing else writes to; None of what cannot be kept."""
    if isinstance(output, Tensor):
        return output.detach().clone()
    if type(output) is tuple and all(part is None or isinstance(part, Tensor) for part in output):
        return tuple(None if part is None else part.detach().clone() for part in output)
    return None


def _tensors(output: _Value) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else [part for part in output if part is not None]


def _size(kept: Mapping[int, _Kept]) -> int:
    return sum(x.nbytes for one in kept.values() for x in _tensors(one.output))


def _digest(output: _Value) -> str:
    return tensors_digest({str(index): x for index, x in enumerate(_tensors(output))})
