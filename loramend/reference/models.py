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

    U (out, k), S (k,), V (in, k), float32, orthonormal columns. norm = ‖M‖_F. energy: the share of ‖M‖_F²
    in S.
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
    """Base and aligned weights, one matrix resident at a time, every matrix turned to ΔW's orientation
    (out, in).

    Asking for a model that was not given raises ReferenceModelError `reference_required`; a weight that is
    missing or
    of another shape `reference_mismatch`, naming the module and both shapes.
    """

    has_base: bool
    has_aligned: bool

    def in_order(self, updates: Iterable[Update]) -> list[Update]:
        """The updates in the order their weights lie on disk, so that a pass reads each shard once,
        forwards."""
        ...

    def check(self, updates: Iterable[Update]) -> None:
        """Header checks alone, no weight read: every update has its weight in every model given, of the
        right shape,
        and the two models are not the same files. Raises `reference_mismatch` or `reference_identical`."""
        ...

    def base(self, update: Update) -> Tensor:
        """W_base (out, in), float32."""
        ...

    def displacement(self, update: Update) -> Tensor:
        """D = W_aligned - W_base (out, in), float32. Raises `reference_identical` where every D read so
        far was zero
        and the last module has been reached."""
        ...

    def base_spectrum(self, update: Update, k: int) -> Subspace:
        """The leading k singular triplets of W_base, from the cache where there."""
        ...

    def displacement_subspace(
        self, update: Update, *, k: int | None = None, energy: float = 0.9, max_k: int = 64
    ) -> Subspace:
        """The leading triplets of D: k of them, or the fewest that hold `energy` of ‖D‖_F², at most max_k."""
        ...

    def read(self) -> list[ReferenceRead]:
        """What was read of each model so far."""
        ...
