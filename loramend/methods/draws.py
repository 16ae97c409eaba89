"""Random draws that depend on the seed and on names, never on the order of modules."""

import hashlib

import torch
from torch import Tensor


def generator(seed: int, *names: str) -> torch.Generator:
    """A CPU generator of its own for every seed and tuple of names, the same on every machine."""
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def orthonormal(rows: int, k: int, source: torch.Generator) -> Tensor:
    """A uniformly random subspace: (rows, min(k, rows)) with orthonormal columns, float64."""
    G = torch.randn(rows, min(k, rows), generator=source)  # drawn several times as fast as in float64
    Q: Tensor = torch.linalg.qr(G.double()).Q
    return Q
