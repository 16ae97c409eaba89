"""Random draws that depend on the seed and on names, never on the order of modules."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def generator(seed: int, *names: str) -> torch.Generator:
    """A CPU generator of its own for every seed and tuple of names, the same on every machine."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def shuffled(items: Sequence[T], seed: int, *names: str) -> list[T]:
    """The items in random order."""
    order = torch.randperm(len(items), generator=generator(seed, *names))
    return [items[index] for index in order.tolist()]


def orthonormal(rows: int, k: int, source: torch.Generator) -> Tensor:
    """A uniformly random subspace: (rows, min(k, rows)) with orthonormal columns, float64."""
    k = min(k, rows)
    G = torch.randn(rows, k, generator=source).double()  # drawn several times as fast as in float64
    if rows < 4 * k:
        Q: Tensor = torch.linalg.qr(G).Q
        return Q
    # A tall Gaussian matrix is so well conditioned that the Cholesky factor of its Gram matrix gives Q to
    # float64's last digits, in a third of a QR's time.
    L: Tensor = torch.linalg.cholesky(G.mT @ G)
    basis: Tensor = torch.linalg.solve_triangular(L, G.mT, upper=False).mT
    return basis
