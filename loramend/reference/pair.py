"""Base and aligned checkpoints behind the interface that methods and measures see."""

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.errors import ReferenceModelError
from loramend.contracts.report import ReferenceRead
from loramend.reference.cache import SubspaceCache, key_of
from loramend.reference.checkpoint import Checkpoint
from loramend.reference.dense import Workspace, frobenius, shaped_like, subtract
from loramend.reference.locate import Weight, locate
from loramend.reference.models import Subspace
from loramend.reference.names import Names
from loramend.reference.range_finder import empty_subspace, first, leading_triplets, smallest_k
from loramend.reference.reads import Reads

Role = Literal["base", "aligned"]

# Widths are rounded up to powers of two from here, so that requests of about one size share an entry.
LEAST_WIDTH = 32
RECENT_SUBSPACES = 4


@dataclass
class Model:
    """One reference model as opened. name: as shown in the report."""

    role: Role
    name: str
    checkpoint: Checkpoint
    reads: Reads = field(default_factory=Reads)
    buffer: Workspace = field(default_factory=lambda: Workspace(torch.uint8))

    def __post_init__(self) -> None:
        self._names = Names(self.checkpoint.names)
        self._weights: dict[tuple[str, int | None, tuple[int, int]], Weight] = {}

    def weight(self, update: Update) -> Weight:
        """Where the update's weight lies; raises as `locate` does."""
        key = (update.weight, update.expert, update.shape)
        if key not in self._weights:
            self._weights[key] = locate(update, self.checkpoint, self._names)
        return self._weights[key]

    def digests(self, weight: Weight) -> list[str] | None:
        """SHA-256 of each of the weight's tensors, where all are known without reading."""
        known = [digest for piece in weight.pieces if (digest := self.checkpoint.digest(piece))]
        return known if len(known) == len(weight.pieces) else None

    def load(self, weight: Weight) -> tuple[Tensor, list[str]]:
        """The weight (out, in) in its own dtype, until the next is loaded, and its tensors' digests."""
        buffer = self.buffer.take(weight.size)
        digests = []
        start = 0
        for piece in weight.pieces:
            _, digest = self.checkpoint.read(piece, buffer[start : start + piece.size])
            digests.append(digest)
            start += piece.size
        self.reads.used(weight.pieces, digests)
        return weight.matrix(buffer), digests


class Measured(NamedTuple):
    """A matrix (out, in), float32, and its Frobenius norm."""

    M: Tensor
    norm: float


class ModelPair:
    """`References` over checkpoints on disk; `loramend.reference.open.open_references` makes one.

    Weights and displacements come on the device it was opened with, subspaces on the CPU. It holds one weight
    matrix of each model in its own dtype, one matrix in float32, and a few subspaces, in memory that is used
    again from module to module; the base's last weight is not read again for the displacement. Not to be
    shared by threads.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        cache: SubspaceCache,
        device: torch.device,
        on_close: Callable[[], object],
    ) -> None:
        self._models: dict[Role, Model] = {model.role: model for model in models}
        self.has_base = "base" in self._models
        self.has_aligned = "aligned" in self._models
        self._cache = cache
        self._device = device
        self._on_close = on_close
        self._held: tuple[Weight, Tensor, list[str]] | None = None
        self._workspace = Workspace(torch.float32)
        self._recent: OrderedDict[str, Subspace] = OrderedDict()
        self._computed: set[str] = set()
        self._reused: set[str] = set()
        self._expected: set[str] = set()
        self._displaced: dict[str, bool] = {}

    def __enter__(self) -> "ModelPair":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is held, and of the cache if it was a temporary one."""
        self._held = None
        self._workspace.clear()
        for model in self._models.values():
            model.buffer.clear()
        self._recent.clear()
        self._on_close()

    def in_order(self, updates: Iterable[Update]) -> list[Update]:
        model = self._models.get("base") or self._models.get("aligned")
        if model is None:
            return list(updates)

        def place(update: Update) -> tuple[int, int]:
            piece = model.weight(update).pieces[0]
            return piece.order, piece.begin

        return sorted(updates, key=place)

    def check(self, updates: Iterable[Update]) -> None:
        updates = list(updates)
        for model in self._models.values():
            _check_distinct(updates, model)
        if self.has_base and self.has_aligned and updates:
            if all(self._known_equal(update) for update in updates):
                raise _identical()
            self._expected |= {update.name for update in updates}

    def base(self, update: Update) -> Tensor:
        return self._base(update, own=True)[0].M

    def displacement(self, update: Update) -> Tensor:
        return self._displacement(update, own=True)[0].M

    def base_spectrum(self, update: Update, k: int) -> Subspace:
        model = self._need("base")
        weight = model.weight(update)
        width = _width(k)
        digests = model.digests(weight)
        if digests is not None:
            model.reads.used(weight.pieces, digests)
            found = self._lookup(_key("base", [(weight, digests)], width))
            if found is not None:
                return first(found, k)
        W, digests = self._base(update, own=False)
        return first(self._find(_key("base", [(weight, digests)], width), W, width), k)

    def displacement_subspace(
        self, update: Update, *, k: int | None = None, energy: float = 0.9, max_k: int = 64
    ) -> Subspace:
        found = self._displacement_subspace(update, _width(max(k or 0, max_k)))
        if k is None:
            k = min(max_k, smallest_k(found, energy))
        return first(found, k)

    def read(self) -> list[ReferenceRead]:
        reused = sum(key.startswith("displacement") for key in self._reused)
        entries = (model.reads.summary(model.role, model.name, reused) for model in self._models.values())
        return [entry for entry in entries if entry]

    def _need(self, role: Role) -> Model:
        model = self._models.get(role)
        if model is None:
            raise ReferenceModelError(
                "reference_required", f"This needs the {role} model: give `{role}`.", where=f"/{role}"
            )
        return model

    def _base_raw(self, weight: Weight) -> tuple[Tensor, list[str]]:
        """W_base (out, in) in its own dtype: the matrix held, or the next one to hold."""
        if self._held is None or self._held[0] != weight:
            self._held = None  # as what it holds is overwritten
            self._held = (weight, *self._need("base").load(weight))
        return self._held[1], self._held[2]

    def _float32(self, M: Tensor, *, own: bool) -> Tensor:
        """Memory for a float32 matrix laid out as M, on the device; unless `own`, until the next call."""
        if own or self._device.type != "cpu":
            return shaped_like(M, torch.empty(M.numel(), device=self._device))
        return shaped_like(M, self._workspace.take(M.numel()))

    def _base(self, update: Update, *, own: bool) -> tuple[Measured, list[str]]:
        """W_base (out, in), float32, and the digests of its tensors; `own` as in `_float32`."""
        weight = self._need("base").weight(update)
        raw, digests = self._base_raw(weight)
        W = self._float32(raw, own=own).copy_(raw)
        norm = frobenius(W)
        if not math.isfinite(norm):
            raise _not_finite("base", weight)
        return Measured(W, norm), digests

    def _displacement(self, update: Update, *, own: bool) -> tuple[Measured, list[tuple[Weight, list[str]]]]:
        """D (out, in), float32, and the digests of both models' tensors; `own` as in `_float32`."""
        base, aligned = self._need("base"), self._need("aligned")
        base_weight, aligned_weight = base.weight(update), aligned.weight(update)
        base_raw, base_digests = self._base_raw(base_weight)
        aligned_raw, aligned_digests = aligned.load(aligned_weight)
        D = self._float32(base_raw, own=own)
        subtract(aligned_raw, base_raw, D)
        norm = frobenius(D)
        if not math.isfinite(norm):
            base_sound = math.isfinite(frobenius(D.copy_(base_raw)))
            raise _not_finite("aligned", aligned_weight) if base_sound else _not_finite("base", base_weight)
        self._note(update, displaced=norm > 0)
        return Measured(D, norm), [(base_weight, base_digests), (aligned_weight, aligned_digests)]

    def _displacement_subspace(self, update: Update, width: int) -> Subspace:
        """The leading `width` triplets of D; no weight is read where they and both digests are known."""
        base, aligned = self._need("base"), self._need("aligned")
        base_weight, aligned_weight = base.weight(update), aligned.weight(update)
        base_digests, aligned_digests = base.digests(base_weight), aligned.digests(aligned_weight)
        if base_digests is not None and aligned_digests is not None:
            pair = [(base_weight, base_digests), (aligned_weight, aligned_digests)]
            key = _key("displacement", pair, width)
            found = empty_subspace(*update.shape) if _equal(pair) else self._lookup(key)
            if found is not None:
                base.reads.used(base_weight.pieces, base_digests)
                aligned.reads.used(aligned_weight.pieces, aligned_digests)
                self._note(update, displaced=found.norm > 0)
                return found
        D, pair = self._displacement(update, own=False)
        return self._find(_key("displacement", pair, width), D, width)

    def _lookup(self, key: str) -> Subspace | None:
        """The subspace under this key, if computed before by this run or another."""
        found = self._recent.get(key) or self._cache.get(key)
        if found is not None:
            if key not in self._computed:
                self._reused.add(key)
            self._remember(key, found)
        return found

    def _find(self, key: str, matrix: Measured, width: int) -> Subspace:
        """The subspace under this key, computed from the matrix where it is not there."""
        found = self._lookup(key)
        if found is None:
            found = _on_cpu(leading_triplets(matrix.M, width, norm=matrix.norm))
            self._computed.add(key)
            self._cache.put(key, found)
            self._remember(key, found)
        return found

    def _remember(self, key: str, subspace: Subspace) -> None:
        self._recent[key] = subspace
        self._recent.move_to_end(key)
        while len(self._recent) > RECENT_SUBSPACES:
            self._recent.popitem(last=False)

    def _note(self, update: Update, *, displaced: bool) -> None:
        """Raises `reference_identical` once every module given to `check` was looked at and none differs."""
        self._displaced[update.name] = displaced
        if self._expected and self._expected <= self._displaced.keys() and not any(self._displaced.values()):
            raise _identical()

    def _known_equal(self, update: Update) -> bool:
        """Whether both models' weights are the same bytes, as far as known without reading."""
        base, aligned = self._models["base"], self._models["aligned"]
        base_weight, aligned_weight = base.weight(update), aligned.weight(update)
        if [piece.place for piece in base_weight.pieces] == [piece.place for piece in aligned_weight.pieces]:
            return True
        base_digests, aligned_digests = base.digests(base_weight), aligned.digests(aligned_weight)
        if base_digests is None or aligned_digests is None:
            return False
        return _equal([(base_weight, base_digests), (aligned_weight, aligned_digests)])


def _check_distinct(updates: Iterable[Update], model: Model) -> None:
    """No two weights of the adapter may have been matched with one tensor, tied ones apart."""
    taken: dict[tuple[str, int, int], Update] = {}
    for update in updates:
        piece = model.weight(update).pieces[0]
        other = taken.setdefault(piece.place, update)
        tied = model.checkpoint.tied and any(one.weight.endswith("lm_head.weight") for one in (update, other))
        if other.weight != update.weight and not tied:
            raise ReferenceModelError(
                "reference_mismatch",
                f"{other.weight} and {update.weight} both lead to {piece.name} of the {model.role} model. "
                "Give the model the adapter was trained on, with its own names.",
                where=update.name,
            )


def _width(k: int) -> int:
    """k rounded up to a power of two, at least LEAST_WIDTH."""
    return max(LEAST_WIDTH, 1 << (k - 1).bit_length())


def _identity(weight: Weight, digests: Sequence[str]) -> str:
    """What tells one weight matrix from every other: bytes, dtype, shape and orientation."""
    stored = [[piece.dtype, *piece.shape] for piece in weight.pieces]
    return json.dumps([stored, list(digests), weight.transposed])


def _equal(pair: Sequence[tuple[Weight, list[str]]]) -> bool:
    return len({_identity(weight, digests) for weight, digests in pair}) == 1


def _key(kind: str, matrices: Sequence[tuple[Weight, list[str]]], width: int) -> str:
    return key_of(kind, [_identity(weight, digests) for weight, digests in matrices], width)


def _on_cpu(subspace: Subspace) -> Subspace:
    return Subspace(
        U=subspace.U.cpu(), S=subspace.S.cpu(), V=subspace.V.cpu(), norm=subspace.norm, energy=subspace.energy
    )


def _identical() -> ReferenceModelError:
    return ReferenceModelError(
        "reference_identical",
        "The base and aligned models hold the same weights wherever this adapter acts, so there is no "
        "displacement to measure against. Give the aligned model and the model it was aligned from.",
        where="/aligned",
    )


def _not_finite(role: Role, weight: Weight) -> ReferenceModelError:
    return ReferenceModelError(
        "reference_invalid",
        f"A weight of the {role} model holds NaN or infinity, or is too large for float32. Give sound "
        "weights.",
        where=f"{role}/{weight.pieces[0].file.label}#{weight.pieces[0].name}",
    )
