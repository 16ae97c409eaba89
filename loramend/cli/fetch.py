"""Hub IDs on the command line, fetched as the machine's user: their login, their cache."""

from collections.abc import Collection
from pathlib import Path

from huggingface_hub import constants, get_token

from loramend.adapter.limits import GiB, Limits
from loramend.cli.found import Found
from loramend.cli.hub.client import Hub
from loramend.cli.hub.datasets import download_dataset
from loramend.cli.hub.download import download_adapter, download_model
from loramend.cli.progress import progress_on_stderr

_MAX_MODEL_BYTES = 2000 * GiB


def fetch_adapter(hub_id: str, revision: str | None, into: Path) -> Found:
    """Download an adapter's files into `into`. Raises what `download_adapter` raises."""
    with progress_on_stderr() as on_progress:
        commit = download_adapter(
            _hub(), hub_id, revision, into, max_bytes=Limits().max_unpacked_bytes, on_progress=on_progress
        )
    return Found(into, f"{hub_id}@{commit}", {"hub_id": hub_id, "revision": commit})


def fetch_model(hub_id: str, revision: str | None, needed: Collection[str], *, whole: bool) -> Found:
    """Download a model's safetensors into the user's cache, shards without a `needed` tensor left out, or the
    `whole` model with all it needs to run. Raises what `download_model` raises."""
    with progress_on_stderr() as on_progress:
        folder, name = download_model(
            _hub(),
            hub_id,
            revision,
            needed=needed,
            max_bytes=_MAX_MODEL_BYTES,
            on_progress=on_progress,
            whole=whole,
        )
    return Found(folder, name)


def fetch_dataset(
    hub_id: str, revision: str | None, file: str | None, *, max_bytes: int, where: str
) -> tuple[Path, str]:
    """Download a JSON Lines file of a dataset into the user's cache; returns its path and its name. Raises
    what `download_dataset` raises."""
    with progress_on_stderr() as on_progress:
        return download_dataset(
            _hub(), hub_id, revision, file, max_bytes=max_bytes, on_progress=on_progress, where=where
        )


def _hub() -> Hub:
    return Hub(cache_dir=Path(constants.HF_HUB_CACHE), endpoint=constants.ENDPOINT, token=get_token())
