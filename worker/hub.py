"""Adapters, models and data from the Hub, under the server's policy: its Hub, its caps, whose token."""

from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from loramend.cli.hub.client import Hub
from loramend.cli.hub.datasets import download_dataset
from loramend.cli.hub.download import download_adapter, download_model
from loramend.contracts.data import DataRef
from loramend.contracts.job import OnProgress
from loramend.contracts.request import ModelRef
from worker.settings import WorkerSettings


def hub_for(settings: WorkerSettings, token: str | None) -> Hub:
    """The server's Hub, asked with the request's token or else the server's own.

    Raises RequestError `hub_forbidden` for a token that cannot be one.
    """
    trusted = frozenset({urlsplit(settings.hub_endpoint).hostname or "", *settings.hub_private_hosts})
    own = settings.hub_token.get_secret_value() if settings.hub_token else None
    return Hub(
        cache_dir=settings.cache_dir / "hub",
        endpoint=settings.hub_endpoint,
        token=token or own or None,
        seconds=settings.hub_seconds,
        attempts=settings.hub_attempts,
        trusted=trusted,
    )


def fetch_adapter(
    hub_id: str,
    revision: str | None,
    token: str | None,
    into: Path,
    settings: WorkerSettings,
    on_progress: OnProgress,
) -> str:
    """Download the adapter's files into the folder `into`; returns the commit they come from.

    Raises AdapterError `adapter_not_found`, `pickle_refused` or `limit_exceeded`, RequestError
    `hub_not_found` or `hub_forbidden`, JobError `hub_unavailable`; nothing is downloaded before the sizes and
    names are known to be right.
    """
    return download_adapter(
        hub_for(settings, token),
        hub_id,
        revision,
        into,
        max_bytes=settings.max_unpacked_bytes,
        on_progress=on_progress,
        where="/source/hub_id",
    )


def fetch_model(
    ref: ModelRef,
    token: str | None,
    settings: WorkerSettings,
    needed: Collection[str] | None,
    on_progress: OnProgress,
    *,
    whole: bool = False,
    where: str | None = None,
) -> tuple[Path, str]:
    """Download a model's safetensors into the cache that jobs share; returns its folder and `id@commit`.

    needed  names of the tensors that will be read, None for all; shards without any of them are left out
    whole   take all it needs to run: every shard, configs, the tokenizer's files
    where   pointer to the model in the request, such as `/base`

    Raises ReferenceModelError `reference_invalid` or `limit_exceeded`, RequestError `hub_not_found` or
    `hub_forbidden`, JobError `hub_unavailable`; ValueError for a reference that is a path.
    """
    if ref.hub_id is None:
        raise ValueError(f"{ref} is a path, not on the Hub")
    return download_model(
        hub_for(settings, token),
        ref.hub_id,
        ref.revision,
        needed=needed,
        max_bytes=settings.max_model_bytes,
        on_progress=on_progress,
        whole=whole,
        where=where,
    )


def fetch_dataset(
    ref: DataRef,
    token: str | None,
    settings: WorkerSettings,
    on_progress: OnProgress,
    *,
    where: str | None = None,
) -> tuple[Path, str]:
    """Download a dataset's JSON Lines file into the cache that jobs share; returns its path and the name
    `id@commit/file`. It is not read: `loramend.data.jsonl.read_jsonl` does that.

    where  pointer to the data in the request, such as `/clean`

    Raises DataError `data_not_found` or `data_invalid`, RequestError `hub_not_found` or `hub_forbidden`,
    JobError `hub_unavailable`; ValueError for a reference that is an upload.
    """
    if ref.hub_id is None:
        raise ValueError("the data is an upload, not on the Hub")
    return download_dataset(
        hub_for(settings, token),
        ref.hub_id,
        ref.revision,
        ref.file,
        max_bytes=settings.max_data_bytes,
        on_progress=on_progress,
        where=where,
    )
