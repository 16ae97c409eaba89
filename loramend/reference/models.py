"""The models a repair measures against, as methods and measures see them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.report import ReferenceRead


@dataclass(frozen=True)
class Subspace:
    """Leading singular triplets of a matrix M ≈ U diag(S) Vᵀ.

    U (out, k), S (k,) descending, V (in, k), float32 on the CPU, orthonormal columns. norm = ‖M‖_F. energy:
    the share of ‖M‖_F² in S. k is less than what was asked for where M's rank is; for M = 0 it is 0, with
    norm 0 and energy 1.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    norm: float
    energy: float

    @property
    def k(self) -> int:
        return int(self.S.shape[0])


class References(Protocol):
    """Base and aligned weights, read one matrix at a time, each turned to ΔW's orientation (out, in).

    Raises ReferenceModelError: `reference_required` for a model that was not given; `reference_mismatch`,
    naming the module and both shapes, for a weight that is missing, ambiguous or of another shape;
    `reference_invalid`, naming file and tensor, for one that cannot be read, is quantised or not finite.
    """

    has_base: bool
    has_aligned: bool

    def in_order(self, updates: Iterable[Update]) -> list[Update]:
        """The updates in the order their weights lie on disk: a pass reads each shard once, forwards."""
        ...

    def check(self, updates: Iterable[Update]) -> None:
        """Check by headers alone that every update has its weight in every model given, of the right shape,
        and that the two models are not known to hold the same bytes. Raises `reference_mismatch` or
        `reference_identical`."""
        ...

    def base(self, update: Update) -> Tensor:
        """W_base (out, in), float32, on the references' device; the caller's own."""
        ...

    def displacement(self, update: Update) -> Tensor:
        """D = W_aligned - W_base (out, in), float32, on the references' device; the caller's own.

        Raises `reference_identical` once D of every update given to `check` was looked at and all are zero.
        """
        ...

    def base_spectrum(self, update: Update, k: int) -> Subspace:
        """The leading k singular triplets of W_base, from the cache where there."""
        ...

    def displacement_subspace(
        self, update: Update, *, k: int | None = None, energy: float = 0.9, max_k: int = 64
    ) -> Subspace:
        """The leading triplets of D, from the cache where there: k of them, or the fewest that hold `energy`
        of ‖D‖_F², at most max_k. Raises `reference_identical` as `displacement` does."""
        ...

    def read(self) -> list[ReferenceRead]:
        """What was used of each model so far; models of which nothing was are left out."""
        ...
