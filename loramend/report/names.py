"""Names of modules, and what they share."""

from collections.abc import Sequence


def shared_prefix(names: Sequence[str]) -> str:
    """The leading dotted parts that all names share, with their last dot; the last part of none."""
    shared = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(f"{parts[0]}.")
    return "".join(shared)
