"""ADAPTER, --base and --aligned: folders, files and Hub IDs turned into folders on this machine."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from loramend.adapter.archive import extract
from loramend.adapter.limits import Limits
from loramend.adapter.locate import PICKLES
from loramend.cli.errors import debugging
from loramend.cli.found import Found
from loramend.cli.hub.environment import HUGGINGFACE, environment
from loramend.contracts.errors import AdapterError, LoramendError, ReferenceModelError
from loramend.contracts.names import HubId, Revision

_HUB_ID: TypeAdapter[str] = TypeAdapter(HubId)
_REVISION: TypeAdapter[str] = TypeAdapter(Revision)


def find_adapter(text: str, scratch: Path) -> Found:
    """Where the adapter is: a folder, an archive, a .safetensors file or a Hub ID (`ID@revision`).

    scratch  an empty folder, filled with what has to be unpacked or fetched
    Raises AdapterError `adapter_not_found`, and what reading archives and fetching from the Hub raises.
    """
    path = Path(text).expanduser()
    if path.exists():
        # The reader takes a .safetensors file with its config beside it, and knows how to refuse a pickle.
        readable = path.is_dir() or path.suffix == ".safetensors" or path.suffix in PICKLES
        place = path if readable else extract(path, scratch / "adapter", Limits())
        return Found(place, text, {"path": str(path.absolute())})
    missing = AdapterError(
        "adapter_not_found",
        f"'{text}' is no file or folder here, nor a Hub ID such as namespace/name or namespace/name@main.",
    )
    hub_id, revision = hub_name(text, missing)
    prepare_hub_client()
    from loramend.cli.fetch import fetch_adapter

    return fetch_adapter(hub_id, revision, scratch)


def find_model(
    text: str | None, role: Literal["base", "aligned"], needed: Collection[str], *, whole: bool = False
) -> Found | None:
    """Where a reference model is: a local folder or .safetensors file, or a Hub ID (`ID@revision`).

    needed  names of the tensors that will be read: other shards are not fetched
    whole   fetch all that it takes to run the model
    Raises ReferenceModelError `reference_not_found`, and what fetching from the Hub raises.
    """
    if text is None:
        return None
    path = Path(text).expanduser()
    if path.exists():
        return Found(path, text)
    missing = ReferenceModelError(
        "reference_not_found", f"'{text}' is no folder here, nor a Hub ID.", where=f"--{role}"
    )
    hub_id, revision = hub_name(text, missing)
    prepare_hub_client()
    from loramend.cli.fetch import fetch_model

    return fetch_model(hub_id, revision, needed, whole=whole)


def is_hub_id(text: str) -> bool:
    """Whether it can be a Hub ID, with or without a revision, and is no path."""
    try:
        hub_name(text, AdapterError("adapter_not_found", "not a Hub ID"))
    except AdapterError:
        return False
    return True


def hub_name(text: str, otherwise: LoramendError) -> tuple[str, str | None]:
    """(ID, revision); raises `otherwise` for what can only be a path, or is neither."""
    if re.match(r"[/.~]", text):
        raise otherwise
    hub_id, at, revision = text.partition("@")
    try:
        return _HUB_ID.validate_python(hub_id), _REVISION.validate_python(revision) if at else None
    except ValidationError:
        raise otherwise from None


def prepare_hub_client() -> None:
    """Settings that huggingface_hub reads when it is imported."""
    for name, value in environment(os.environ.get("HF_ENDPOINT") or HUGGINGFACE).items():
        os.environ.setdefault(name, value)
    if not debugging():
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its advice would stand beside our one line
