"""Local model paths come only from configured folders."""

from collections.abc import Sequence
from pathlib import Path

from loramend.contracts.errors import RequestError


def check_model_path(path: str, roots: Sequence[Path], *, where: str | None = None) -> Path:
    """The path, links resolved, if it is a folder under one of `roots`.

    Raises RequestError `path_not_allowed` else, and `reference_not_found` where there is no such folder under
    a root; the answer does not tell whether a path outside exists.
    """
    refused = RequestError(
        "path_not_allowed",
        "That local path is not under the server's model roots"
        + (
            ". Give a Hub ID, or a folder under one of the roots."
            if roots
            else ": it has none. Give a Hub ID."
        ),
        where=where,
    )
    try:
        resolved = Path(path).expanduser().resolve()
        allowed = [root.expanduser().resolve() for root in roots]
    except (OSError, RuntimeError, ValueError) as error:
        raise refused from error
    if not any(resolved.is_relative_to(root) for root in allowed):
        raise refused
    try:
        there = resolved.is_dir()
    except OSError:  # a name that is too long, a folder that may not be entered
        there = False
    if not there:
        raise RequestError("reference_not_found", f"There is no model folder {path}.", where=where)
    return resolved
