"""JSON Lines files of dataset repositories on a Hub."""

from itertools import islice
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, RepoFile

from loramend.adapter.quote import quote
from loramend.cli.hub.client import Hub
from loramend.cli.hub.download import Listing, resolve_commit
from loramend.cli.hub.transfer import transfer
from loramend.contracts.errors import DataError
from loramend.contracts.job import OnProgress

_MAX_ENTRIES = 10_000
_SUFFIXES = (".jsonl", ".ndjson", ".json")


def download_dataset(
    hub: Hub,
    repo_id: str,
    revision: str | None,
    file: str | None,
    *,
    max_bytes: int,
    on_progress: OnProgress,
    where: str | None = None,
) -> tuple[Path, str]:
    """Download one JSON Lines file of a dataset repository into the Hub's cache; returns its path and the
    name `id@commit/file`.

    file  its path in the repository; None where it holds only one .jsonl file

    Raises DataError `data_not_found` (no such file, or none, or several to choose from) or `data_invalid`
    (another format, or over `max_bytes`); RequestError `hub_not_found` or `hub_forbidden`, JobError
    `hub_unavailable`.
    """
    if file is not None:
        _check_name(file, where)
    listed = _list(hub, repo_id, revision, file, where)
    path = file if file is not None else _only(listed, where)
    if path not in listed.sizes:
        raise DataError("data_not_found", f"{listed.name} holds no file {quote(path)}.", where=where)
    size = listed.sizes[path]
    if size > max_bytes:
        raise DataError(
            "data_invalid",
            f"{path} in {listed.name} has {size:,} bytes; at most {max_bytes:,} are read.",
            where=where,
        )
    folder = transfer(
        hub, repo_id, listed.commit, {path: size}, on_progress, repo_type="dataset", where=where
    )
    return folder / PurePosixPath(path).name, f"{listed.name}/{path}"


def _list(hub: Hub, repo_id: str, revision: str | None, file: str | None, where: str | None) -> Listing:
    """The file asked for, or else everything that could be meant."""
    what = f"dataset {repo_id}@{revision}" if revision else f"dataset {repo_id}"

    def ask(api: HfApi) -> Listing:
        commit = resolve_commit(api, repo_id, revision, seconds=hub.seconds, repo_type="dataset")
        if file is not None:
            entries = iter(api.get_paths_info(repo_id, [file], revision=commit, repo_type="dataset"))
        else:
            tree = api.list_repo_tree(repo_id, revision=commit, repo_type="dataset", recursive=True)
            entries = islice(tree, _MAX_ENTRIES)
        sizes = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
        return Listing(repo_id, commit, sizes)

    return hub.call(what, ask, where=where)


def _only(listed: Listing, where: str | None) -> str:
    found = sorted(path for path in listed.sizes if path.endswith(".jsonl") and _is_plain(path))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(quote(path) for path in found[:5])
        more = ", …" if len(found) > 5 else ""
        detail = f"{listed.name} holds {len(found)} .jsonl files: name one of {shown}{more}."
    else:
        detail = f"{listed.name} holds no .jsonl file: name the file, or write the data as JSON Lines."
    raise DataError("data_not_found", detail, where=where)


def _check_name(file: str, where: str | None) -> None:
    if not _is_plain(file):
        raise DataError("data_not_found", f"{quote(file)} is no path in a repository.", where=where)
    if not file.endswith(_SUFFIXES):
        raise DataError(
            "data_invalid",
            f"{quote(file)} is no JSON Lines file: name a .jsonl file, with one JSON object a line.",
            where=where,
        )


def _is_plain(path: str) -> bool:
    """Whether it stays inside the folder it is taken from."""
    return path.isprintable() and not {"", ".", ".."} & set(path.split("/"))
