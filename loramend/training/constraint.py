"""RoRA's trigger-insensitive constraint: keep the update off the base weight's leading directions.

Source      RoRA part 2, arXiv 2601.06305: Ω(A, B) = ‖UᵀB‖_F² + ‖AV‖_F², W = UΣVᵀ, summed over modules.
Limits      the paper states no k. With all of a square W's directions Ω is plain L2 on A and B; the leading
            k are what makes it a constraint.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from loramend.reference.models import Subspace
from loramend.training.lora_linear import Trainable


class _Group(NamedTuple):
    """Modules of one shape and rank, so that they share each product. U (n, out, k), V (n, in, k)."""

    modules: list[Trainable]
    U: Tensor
    V: Tensor


class Constraint:
    """Ω over the trained modules.

    trained   by Update.name
    spectra   the leading k triplets of each module's W, by the same names
    reduction sum of squares over all modules, or their mean over all entries of UᵀB and AV
    """

    def __init__(
        self,
        trained: Mapping[str, Trainable],
        spectra: Mapping[str, Subspace],
        reduction: Literal["sum", "mean"],
    ) -> None:
        alike: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for name, module in trained.items():
            alike[*module.B.shape, *module.A.shape, spectra[name].k].append(name)
        self._groups = [
            _Group(
                [trained[name] for name in names],
                torch.stack([spectra[name].U for name in names]).to(trained[names[0]].B),
                torch.stack([spectra[name].V for name in names]).to(trained[names[0]].A),
            )
            for names in alike.values()
        ]
        # UᵀB is (k, r) and AV (r, k).
        entries = sum(2 * spectra[name].k * module.A.shape[0] for name, module in trained.items())
        self._factor = 1.0 / max(entries, 1) if reduction == "mean" else 1.0

    def __call__(self) -> Tensor:
        """Ω of the factors as they are now, a scalar."""
        total = torch.zeros((), device=self._groups[0].U.device)
        for modules, U, V in self._groups:
            B = torch.stack([module.B for module in modules])  # (n, out, r)
            A = torch.stack([module.A for module in modules])  # (n, r, in)
            # Not norm()**2: B starts at zero, where the norm has no gradient.
            total = total + (U.mT @ B).pow(2).sum() + (A @ V).pow(2).sum()
        return total * self._factor
