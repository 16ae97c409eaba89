"""Which tensor of a checkpoint an update is added to."""

from dataclasses import dataclass

from torch import Tensor

from loramend.adapter.model import Update
from loramend.adapter.quote import quote
from loramend.contracts.errors import ReferenceModelError
from loramend.reference.checkpoint import DTYPES, Checkpoint, Stored
from loramend.reference.names import Names

# How a fused expert parameter is spelt where a checkpoint keeps experts apart: (gate, up) stacked, or one
# matrix (transformers' conversion_mapping.py, "mixtral" and "qwen2_moe").
EXPERT_PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}

# What the output layer's weight is called where a checkpoint keeps it as the input embedding's alone.
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "shared")

# The Conv1D layers of the model types that have some; their other layers are plain.
CONV1D_LAYERS = frozenset({"c_attn", "c_fc", "c_proj", "q_attn"})

# What quantisers leave in place of `weight` or of a parameter.
QUANTISED = (".qweight", ".weight_packed", "_blocks")

SHOWN = 5


@dataclass(frozen=True)
class Weight:
    """A weight matrix in a checkpoint: one stored tensor, or several stacked by rows.

    transposed  stored as (in, out)
    """

    pieces: tuple[Stored, ...]
    transposed: bool

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(piece.size for piece in self.pieces)

    def matrix(self, buffer: Tensor) -> Tensor:
        """(out, in) in the stored dtype: a view of the pieces' bytes, one after the other in `buffer`."""
        rows = sum(piece.shape[0] for piece in self.pieces)
        flat = buffer.view(DTYPES[self.pieces[0].dtype]).view(rows, -1)  # convolutions (out, in, *kernel)
        return flat.mT if self.transposed else flat


def locate(update: Update, checkpoint: Checkpoint, names: Names) -> Weight:
    """The weight that `update` is added to, found by name and checked by header alone.

    Raises ReferenceModelError `reference_mismatch` where it is missing, ambiguous or of another shape,
    `reference_invalid` where it is quantised.
    """
    found = names.like(update.weight)
    if not found and update.expert is not None:
        experts = _experts_apart(update, checkpoint, names)
        if experts is not None:
            return experts
    if not found and checkpoint.tied and update.weight.endswith("lm_head.weight"):
        front = update.weight.removesuffix("lm_head.weight")
        found = next((tied for name in EMBEDDINGS if (tied := names.like(f"{front}{name}.weight"))), [])
    if not found:
        raise _missing(update, checkpoint, names)
    stored = [checkpoint.find(name) for name in found]
    for one in stored:
        _refuse_quantised(one, checkpoint)
    fitting = [weight for one in stored if (weight := _fit(one, update, checkpoint))]
    if len(fitting) > 1:
        shown = ", ".join(quote(weight.pieces[0].name) for weight in fitting[:SHOWN])
        raise _mismatch(
            f"{quote(update.weight)} could be any of these tensors of the {checkpoint.role} model: {shown}. "
            "Give the model the adapter was trained on, with its own names.",
            update,
        )
    if not fitting:
        raise _other_shape(update, checkpoint, stored)
    return fitting[0]


def _fit(stored: Stored, update: Update, checkpoint: Checkpoint) -> Weight | None:
    """The stored tensor, or its slice for the update's expert, as its weight; None if the shape differs."""
    by_columns = _by_columns(stored, update, checkpoint)
    if update.expert is not None:
        if len(stored.shape) != 3 or update.expert >= stored.shape[0]:
            return None
        stored = stored.slice(update.expert)
    transposed = _transposed(stored.shape, update, by_columns)
    return None if transposed is None else Weight((stored,), transposed)


def _by_columns(stored: Stored, update: Update, checkpoint: Checkpoint) -> bool:
    """Whether the weight is stored as (in, out), as far as the adapter and names tell.

    fan_in_fan_out is one flag for the whole adapter, and PEFT leaves it as its last layer had it: where a
    model mixes Conv1D and Linear, names decide. A square expert lies as its sibling does.
    """
    if update.kind == "linear" and checkpoint.conv1d:
        layer = update.weight.removesuffix(".weight").rpartition(".")[2]
        return layer in CONV1D_LAYERS
    out, in_ = update.shape
    parent, _, parameter = stored.name.rpartition(".")
    # Of ΔW gate_up_proj is (2·inter, hidden) and down_proj (hidden, inter): the sibling's shape by columns.
    siblings = {"gate_up_proj": ("down_proj", (out // 2, in_)), "down_proj": ("gate_up_proj", (out, 2 * in_))}
    if update.expert is not None and out == in_ and parameter in siblings:
        sibling, by_columns = siblings[parameter]
        name = f"{parent}.{sibling}" if parent else sibling
        return name in checkpoint and checkpoint.find(name).shape[1:] == by_columns
    return update.transposed


def _transposed(shape: tuple[int, ...], update: Update, by_columns: bool) -> bool | None:
    """Whether a tensor of this shape holds the weight as (in, out); None where it does not fit."""
    if len(shape) < 2:
        return None
    columns = 1
    for size in shape[1:]:
        columns *= size
    plain = (shape[0], columns) == update.shape
    turned = len(shape) == 2 and (shape[1], shape[0]) == update.shape
    if update.kind == "parameter" and plain != turned:
        # A parameter's orientation is its model's own, which the adapter's files do not tell.
        return turned
    if by_columns:
        return True if turned else None
    return False if plain else None


def _experts_apart(update: Update, checkpoint: Checkpoint, names: Names) -> Weight | None:
    parent, _, parameter = update.weight.rpartition(".")
    for prefix in dict.fromkeys((parent, parent.replace(".mlp.", ".block_sparse_moe."))):
        for parts in EXPERT_PARTS.get(parameter, ()):
            found = [names.like(f"{prefix}.{update.expert}.{part}.weight") for part in parts]
            if not all(found):
                continue
            if any(len(options) > 1 for options in found):
                raise _mismatch(
                    f"{quote(update.weight)}, expert {update.expert}, could be several tensors of the "
                    f"{checkpoint.role} model: {', '.join(quote(name) for name in found[0][:SHOWN])}.",
                    update,
                )
            stored = tuple(checkpoint.find(options[0]) for options in found)
            for one_piece in stored:
                _refuse_quantised(one_piece, checkpoint)
            columns = {piece.shape[-1] for piece in stored}
            rows = sum(piece.shape[0] for piece in stored)
            dtypes = {piece.dtype for piece in stored}
            fits = all(len(piece.shape) == 2 for piece in stored) and len(columns) == len(dtypes) == 1
            if not fits or (rows, *columns) != update.shape:
                raise _other_shape(update, checkpoint, list(stored))
            return Weight(stored, transposed=False)
    return None


def _refuse_quantised(stored: Stored, checkpoint: Checkpoint) -> None:
    if stored.dtype not in DTYPES:
        raise _quantised(f"{quote(stored.name)} is stored as {stored.dtype}", checkpoint, stored.name)


def _missing(update: Update, checkpoint: Checkpoint, names: Names) -> ReferenceModelError:
    stem = update.weight.removesuffix(".weight")
    for ending in QUANTISED:
        found = names.like(stem + ending)
        if found:
            return _quantised(f"it holds {quote(found[0])} instead of the weight", checkpoint, found[0])
    hint = "Give the model the adapter was trained on."
    if update.expert is not None:
        hint = "Its experts cannot be matched by name: save it with transformers 5 or later."
    return _mismatch(f"The {checkpoint.role} model has no weight {quote(update.weight)}. {hint}", update)


def _other_shape(update: Update, checkpoint: Checkpoint, stored: list[Stored]) -> ReferenceModelError:
    shown = ", ".join(f"{quote(one.name)} {list(one.shape)}" for one in stored[:SHOWN])
    wanted = list(update.shape)
    expert = "" if update.expert is None else f", expert {update.expert},"
    turned = " stored transposed" if update.transposed else ""
    return _mismatch(
        f"The update{expert} is {wanted}{turned} but the {checkpoint.role} model holds {shown}. "
        "Give the model the adapter was trained on.",
        update,
    )


def _mismatch(detail: str, update: Update) -> ReferenceModelError:
    return ReferenceModelError("reference_mismatch", detail, where=update.name)


def _quantised(what: str, checkpoint: Checkpoint, tensor: str) -> ReferenceModelError:
    return ReferenceModelError(
        "reference_invalid",
        f"The {checkpoint.role} model is quantised: {what}. Give the unquantised model.",
        where=f"{checkpoint.role}#{quote(tensor)}",
    )
