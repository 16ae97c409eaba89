"""Adapters and reference models from a Hub: what to take, how much at most, and where it ends up.

Nothing is downloaded before the sizes that the Hub announces have been added up.
"""

import json
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, RepoFile
from huggingface_hub.constants import DEFAULT_REVISION

from loramend.cli.hub.client import Hub
from loramend.cli.hub.transfer import RepoType, transfer
from loramend.contracts.errors import AdapterError, ReferenceModelError
from loramend.contracts.job import OnProgress

_MAX_ENTRIES = 10_000
_MAX_README = 1024**2
_MAX_INDEX = 64 * 1024**2
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_WHOLE_MODELS = {"model.safetensors", "diffusion_pytorch_model.safetensors"}
_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
_SENTENCEPIECE = ".model"
# What transformers reads beside the weights and `_SENTENCEPIECE` files, code left out.
_RUN_FILES = frozenset(
    {
        _CONFIG,
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
    }
)


@dataclass(frozen=True)
class Listing:
    """Files of a repository at one commit: sizes in bytes by path."""

    repo_id: str
    commit: str
    sizes: Mapping[str, int]

    @property
    def name(self) -> str:
        return f"{self.repo_id}@{self.commit}"

    def select(self, names: Iterable[str]) -> dict[str, int]:
        """Sizes of some of the files."""
        return {name: self.sizes[name] for name in names}

    def ending(self, *suffixes: str) -> list[str]:
        """The files with one of these suffixes, sorted."""
        return sorted(name for name in self.sizes if name.endswith(suffixes))


def list_files(hub: Hub, repo_id: str, revision: str | None, *, where: str | None = None) -> Listing:
    """Resolve a revision and list the files at its root.

    A gated repository is refused to a token that may not open it, even where the files lie in the cache.
    Raises RequestError `hub_not_found` or `hub_forbidden`, JobError `hub_unavailable`.
    """
    what = f"{repo_id}@{revision}" if revision else repo_id

    def ask(api: HfApi) -> Listing:
        commit = resolve_commit(api, repo_id, revision, seconds=hub.seconds)
        entries = islice(api.list_repo_tree(repo_id, revision=commit), _MAX_ENTRIES)
        files = {
            entry.path: entry.size
            for entry in entries
            if isinstance(entry, RepoFile) and "/" not in entry.path
        }
        return Listing(repo_id, commit, files)

    return hub.call(what, ask, where=where)


def resolve_commit(
    api: HfApi, repo_id: str, revision: str | None, *, seconds: float, repo_type: RepoType = "model"
) -> str:
    """The commit a revision names, once the repository is open to the token. For use inside `Hub.call`."""
    # Named, since a mirror may know its branches and no default one.
    revision = revision or DEFAULT_REVISION
    info = api.repo_info(repo_id, revision=revision, repo_type=repo_type, timeout=seconds)
    if not info.sha or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise ValueError("the Hub names no commit")
    if info.gated:
        api.auth_check(repo_id, repo_type=repo_type)
    return info.sha


def download_adapter(
    hub: Hub,
    repo_id: str,
    revision: str | None,
    into: Path,
    *,
    max_bytes: int,
    on_progress: OnProgress,
    where: str | None = None,
) -> str:
    """Download a repository's adapter files into the folder `into`; returns the commit they come from.

    Taken are adapter_config.json and adapter_model.safetensors, or the one .safetensors file of a kohya or
    diffusers adapter, and the README.

    Raises AdapterError `adapter_not_found`, `pickle_refused` or `limit_exceeded` (over `max_bytes` together),
    and what `list_files` raises.
    """
    listing = list_files(hub, repo_id, revision, where=where)
    wanted = choose_adapter_files(listing, where=where)
    sizes = listing.select(wanted)
    if (total := sum(sizes.values())) > max_bytes:
        raise AdapterError(
            "limit_exceeded",
            f"The adapter's files in {listing.name} have {total:,} bytes; at most {max_bytes:,} are allowed.",
            where=where,
        )
    into.mkdir(parents=True, exist_ok=True)
    try:
        transfer(hub, repo_id, listing.commit, sizes, on_progress, into=into, where=where)
    finally:
        shutil.rmtree(into / ".cache", ignore_errors=True)  # huggingface_hub's notes on the download
    return listing.commit


def choose_adapter_files(listing: Listing, *, where: str | None = None) -> list[str]:
    """The files that make up the adapter, README last.

    Raises AdapterError `adapter_not_found` or `pickle_refused`.
    """
    weights = listing.ending(".safetensors")
    if "adapter_model.safetensors" in weights:
        wanted = [*({"adapter_config.json"} & listing.sizes.keys()), "adapter_model.safetensors"]
    elif not weights and (pickles := listing.ending(*_PICKLES)):
        raise AdapterError(
            "pickle_refused",
            f"{listing.name} holds its weights only as {pickles[0]}, a pickle, which can run code when "
            "opened. Convert it where you trust it: peft's save_pretrained writes adapter_model.safetensors.",
            where=where,
        )
    elif len(weights) == 1 and "adapter_config.json" not in listing.sizes and weights[0] not in _WHOLE_MODELS:
        wanted = weights
    else:
        found = f"only {', '.join(weights[:5])}" if weights else "no .safetensors file"
        raise AdapterError(
            "adapter_not_found",
            f"{listing.name} holds no adapter_model.safetensors at its root, {found}: "
            "name the repository of a LoRA adapter.",
            where=where,
        )
    readme = listing.sizes.get("README.md", _MAX_README + 1)
    return [*wanted, "README.md"] if readme <= _MAX_README else wanted


def download_model(
    hub: Hub,
    repo_id: str,
    revision: str | None,
    *,
    needed: Collection[str] | None,
    max_bytes: int,
    on_progress: OnProgress,
    whole: bool = False,
    where: str | None = None,
) -> tuple[Path, str]:
    """Download a model's safetensors into the Hub's cache; returns the folder and the name `id@commit`.

    needed  names of the tensors that will be read; of a sharded model only the shards that hold them are
            taken. None, or a name that the index does not hold, takes all.
    whole   take all weights, and with them what it takes to run the model: its configs and its tokenizer's
            files, known by their names; never code

    Raises ReferenceModelError `reference_invalid` (no safetensors, or an index that cannot be right) or
    `limit_exceeded`, and what `list_files` raises.
    """
    listing = list_files(hub, repo_id, revision, where=where)
    beside = sorted(name for name in listing.sizes if name in (_RUN_FILES if whole else {_CONFIG}))
    if whole:
        needed = None
        beside += listing.ending(_SENTENCEPIECE)
        if _CONFIG not in listing.sizes:
            raise ReferenceModelError(
                "reference_invalid", f"{listing.name} has no {_CONFIG}: it cannot be run.", where=where
            )
    if _INDEX in listing.sizes:
        if listing.sizes[_INDEX] > _MAX_INDEX:
            raise ReferenceModelError(
                "limit_exceeded", f"{_INDEX} in {listing.name} is over {_MAX_INDEX:,} bytes.", where=where
            )
        index = listing.select([_INDEX])
        folder = transfer(hub, repo_id, listing.commit, index, on_progress, where=where)
        shards = choose_shards(_weight_map(folder / _INDEX, listing, where), needed)
        wanted = [*beside, *shards]
    else:
        wanted = [*beside, *_unindexed_weights(listing, where)]
    sizes = listing.select(wanted)
    if (total := sum(sizes.values())) > max_bytes:
        raise ReferenceModelError(
            "limit_exceeded",
            f"The weights needed of {listing.name} have {total:,} bytes; at most {max_bytes:,} are allowed.",
            where=where,
        )
    return transfer(hub, repo_id, listing.commit, sizes, on_progress, where=where), listing.name


def choose_shards(weight_map: Mapping[str, str], needed: Collection[str] | None) -> list[str]:
    """The shards that hold the needed tensors, all where one cannot be found.

    Names are the same, or one ends with the other at a dot, since checkpoints differ in their leading parts
    (`model.layers.0…` and `layers.0…`); of several such tensors the shards of all are taken.
    """
    if not needed:
        return sorted(set(weight_map.values()))
    shards: set[str] = set()
    for name in needed:
        if name in weight_map:
            shards.add(weight_map[name])
            continue
        found = {
            shard
            for tensor, shard in weight_map.items()
            if tensor.endswith(f".{name}") or name.endswith(f".{tensor}")
        }
        if not found:
            return sorted(set(weight_map.values()))
        shards |= found
    return sorted(shards)


def _weight_map(path: Path, listing: Listing, where: str | None) -> dict[str, str]:
    """Tensor name to shard, every shard a file of the listing."""
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
        shards = set(weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        shards = set()
    if not shards:
        raise ReferenceModelError(
            "reference_invalid", f"{_INDEX} in {listing.name} has no weight_map of tensors.", where=where
        )
    missing = sorted(str(shard) for shard in shards if shard not in listing.sizes)
    if missing or not all(str(shard).endswith(".safetensors") for shard in shards):
        raise ReferenceModelError(
            "reference_invalid",
            f"{_INDEX} in {listing.name} names shards that are not there as safetensors: "
            f"{', '.join(missing[:3])}.",
            where=where,
        )
    return cast(dict[str, str], weight_map)


def _unindexed_weights(listing: Listing, where: str | None) -> list[str]:
    weights = listing.ending(".safetensors")
    if "model.safetensors" in weights:
        return ["model.safetensors"]
    if weights and "adapter_model.safetensors" not in weights:
        return weights
    if "adapter_model.safetensors" in weights:
        detail = f"{listing.name} is an adapter, not a model: name the model it was trained on."
    elif pickles := listing.ending(*_PICKLES):
        detail = (
            f"{listing.name} holds its weights only as {pickles[0]}, a pickle, which is never opened here. "
            "Give a revision that has safetensors (the Hub's conversion makes one under refs/pr/), or, where "
            "you trust it, load it with transformers and save it again with save_pretrained."
        )
    else:
        detail = f"{listing.name} holds no .safetensors file at its root."
    raise ReferenceModelError("reference_invalid", detail, where=where)
