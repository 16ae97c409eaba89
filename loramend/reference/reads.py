"""What was read of a reference model, for the report."""

import hashlib
from collections.abc import Iterable
from typing import Literal

from loramend.contracts.report import ReferenceRead
from loramend.reference.checkpoint import Stored


class Reads:
    """Tensors used of one model, each counted once, whether its bytes were read or its digest was
    remembered."""

    def __init__(self) -> None:
        self._tensors: dict[str, tuple[Stored, str]] = {}

    def used(self, pieces: Iterable[Stored], digests: Iterable[str]) -> None:
        """These tensors were used; `digests` are the SHA-256 of their bytes."""
        for stored, digest in zip(pieces, digests, strict=True):
            self._tensors[stored.name] = (stored, digest)

    def summary(
        self, role: Literal["base", "aligned"], name: str, cached_subspaces: int
    ) -> ReferenceRead | None:
        """The report's entry, or None where nothing was used.

        Its sha256 is that of the lines `name dtype d0xd1… sha256`, sorted, each ended by a newline: the
        same weights give the same digest however they are sharded.
        """
        if not self._tensors:
            return None
        lines = sorted(
            f"{tensor} {stored.dtype} {'x'.join(map(str, stored.shape))} {digest}\n"
            for tensor, (stored, digest) in self._tensors.items()
        )
        return ReferenceRead(
            role=role,
            name=name,
            tensors=len(lines),
            bytes=sum(stored.size for stored, _ in self._tensors.values()),
            sha256=hashlib.sha256("".join(lines).encode()).hexdigest(),
            cached_subspaces=cached_subspaces,
        )
