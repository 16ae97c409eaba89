"""Between tensors as a file stores them and the factors of each update."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from loramend.adapter.layout import ModuleLayout


def split_factors(module: ModuleLayout, A: Tensor, B: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(A (r, in), B (out, r)) of each update of a module, from its tensors as stored.

    The orders of experts and ranks are PEFT's: expert first in A's rows, rank first in B's columns
    (ParamWrapper.get_delta_weight). A grouped convolution's B is block-diagonal over r
    (_ConvNd.update_layer), so each group is an update of its own.
    """
    out = B.shape[0]
    if module.split == "experts":
        stacked_A = A.reshape(module.count, module.rank, -1)  # (E, r, in)
        stacked_B = B.reshape(out, module.rank, module.count)  # (out, r, E)
        return [(stacked_A[e], stacked_B[:, :, e].contiguous()) for e in range(module.count)]
    A = A.reshape(A.shape[0], -1)  # (r, in · kernel)
    B = B.reshape(out, -1)  # (out, r/groups)
    return list(zip(A.chunk(module.count), B.chunk(module.count), strict=True))


def join_factors(
    module: ModuleLayout, factors: Sequence[tuple[Tensor, Tensor]], rank: int
) -> tuple[Tensor, Tensor]:
    """The inverse, at rank r of each update: factors of lower rank are filled with zeros.

    Gives A and B in the shapes a file stores, with the new rank.
    """
    padded_A = [pad(A, (0, 0, 0, rank - A.shape[0])) for A, _ in factors]  # (r, in)
    padded_B = [pad(B, (0, rank - B.shape[1])) for _, B in factors]  # (out, r)
    if module.split == "experts":
        B = torch.stack(padded_B, dim=-1)  # (out, r, E)
        return torch.cat(padded_A), B.reshape(B.shape[0], -1)
    A = torch.cat(padded_A).reshape(-1, *module.a_shape[1:])
    return A, torch.cat(padded_B).reshape(-1, rank, *module.b_shape[2:])
