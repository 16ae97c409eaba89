"""References in memory with exact dense SVDs, for tests of whatever measures against a model."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.errors import ReferenceModelError
from loramend.contracts.report import ReferenceRead
from loramend.reference.models import Subspace


def exact_subspace(M: Tensor, k: int | None, *, energy: float = 1.0, max_k: int = 10**9) -> Subspace:
    """The leading triplets of a dense matrix, cut as References.displacement_subspace says."""
    U, S, Vh = torch.linalg.svd(M.double(), full_matrices=False)
    total = S.square().sum()
    positive = int(S.gt(1e-7 * S[0]).sum()) if float(total) else 0
    if k is None:
        held = S.square().cumsum(0) / total.clamp_min(1e-300)
        k = min(max_k, int((held < energy - 1e-12).sum()) + 1)
    k = min(k, positive)
    share = float(S[:k].square().sum() / total) if float(total) else 1.0
    return Subspace(
        U=U[:, :k].float(), S=S[:k].float(), V=Vh[:k].mT.float(), norm=float(total.sqrt()), energy=share
    )


class DenseReferences:
    """Weights by name, as a checkpoint stores them."""

    def __init__(self, base: Mapping[str, Tensor] | None = None, aligned: Mapping[str, Tensor] | None = None):
        self._base, self._aligned = base, aligned
        self.has_base, self.has_aligned = base is not None, aligned is not None

    def in_order(self, updates: Iterable[Update]) -> list[Update]:
        return list(updates)

    def check(self, updates: Iterable[Update]) -> None:
        for update in updates:
            self.base(update)

    def base(self, update: Update) -> Tensor:
        return _turned(self._base, update, "base")

    def displacement(self, update: Update) -> Tensor:
        return _turned(self._aligned, update, "aligned") - self.base(update)

    def base_spectrum(self, update: Update, k: int) -> Subspace:
        return exact_subspace(self.base(update), k)

    def displacement_subspace(
        self, update: Update, *, k: int | None = None, energy: float = 0.9, max_k: int = 64
    ) -> Subspace:
        return exact_subspace(self.displacement(update), k, energy=energy, max_k=max_k)

    def read(self) -> list[ReferenceRead]:
        return []


def _turned(weights: Mapping[str, Tensor] | None, update: Update, role: str) -> Tensor:
    if weights is None:
        raise ReferenceModelError("reference_required", f"Give the {role} model.", where=update.name)
    W = weights[update.weight]
    if update.expert is not None:
        W = W[update.expert]
    W = W.flatten(1)
    return (W.mT if update.transposed else W).float()
