"""What the commands share: the adapter read, the models found and opened, the device chosen."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from loramend.adapter import locate
from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.cli.errors import CommandError
from loramend.cli.found import Found
from loramend.cli.progress import progress_on_stderr
from loramend.cli.source import find_adapter, find_model, is_hub_id
from loramend.contracts.errors import ReferenceModelError
from loramend.contracts.job import Progress
from loramend.reference.models import References
from loramend.reference.open import open_references


@dataclass(frozen=True)
class Work:
    """Everything a command needs to call the pipeline.

    folder  where the files that were read are
    model   the base model's folder where it is to be run; None where not, or where there is no base
    """

    adapter: Adapter
    folder: Path
    source: dict[str, str]
    references: References
    model: Path | None
    device: str
    on_progress: Callable[[Progress], None]


@contextmanager
def prepared(
    adapter: str,
    base: str | None,
    aligned: str | None,
    *,
    device: str | None,
    cache: Path,
    own_base: bool = False,
    runs_base: bool = False,
) -> Iterator[Work]:
    """Fetch and read what the command line names; temporary files go when the block ends.

    own_base   where no base is named, take the one that the adapter's own config names, if it can be one
    runs_base  the base model will be run, so all of it is needed

    Raises CommandError `not_installed`, and what finding, reading and opening raise.
    """
    if runs_base:
        _check_can_run()
    with ExitStack() as stack:
        chosen = choose_device(device)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loramend-")))
        found = find_adapter(adapter, scratch)
        read = read_adapter(found.folder, name=found.name)
        needed = {update.weight for update in read.updates.values()}
        if base is None and own_base:
            base = _own_base(read)
        base_found = find_model(base, "base", needed, whole=runs_base)
        aligned_found = find_model(aligned, "aligned", needed)
        references = stack.enter_context(_opened(base_found, aligned_found, cache, chosen))
        on_progress = stack.enter_context(progress_on_stderr())
        yield Work(
            adapter=read,
            folder=locate.find_adapter(found.folder).root,
            source=found.source,
            references=references,
            model=base_found.folder if base_found and runs_base else None,
            device=chosen,
            on_progress=on_progress,
        )


@dataclass(frozen=True)
class Pair:
    """Two adapters and the base model to measure both against."""

    a: Adapter
    b: Adapter
    source: dict[str, str]
    references: References
    device: str
    on_progress: Callable[[Progress], None]


@contextmanager
def prepared_pair(a: str, b: str, base: str | None, *, device: str | None, cache: Path) -> Iterator[Pair]:
    """The same for two adapters. Raises what finding, reading and opening raise."""
    with ExitStack() as stack:
        chosen = choose_device(device)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loramend-")))
        read: dict[str, Adapter] = {}
        source: dict[str, str] = {}
        for name, text in (("a", a), ("b", b)):
            (scratch / name).mkdir()
            found = find_adapter(text, scratch / name)
            read[name] = read_adapter(found.folder, name=found.name)
            source |= {f"{name}.{key}": value for key, value in found.source.items()}
        needed = {update.weight for adapter in read.values() for update in adapter.updates.values()}
        references = stack.enter_context(_opened(find_model(base, "base", needed), None, cache, chosen))
        on_progress = stack.enter_context(progress_on_stderr())
        yield Pair(read["a"], read["b"], source, references, chosen, on_progress)


def _opened(
    base: Found | None, aligned: Found | None, cache: Path, device: str
) -> AbstractContextManager[References]:
    return open_references(
        base.folder if base else None,
        aligned.folder if aligned else None,
        base_name=base.name if base else None,
        aligned_name=aligned.name if aligned else None,
        cache_dir=cache.expanduser(),
        device=device,
    )


def needed_model(work: Work) -> Path:
    """The base model's folder. Raises ReferenceModelError `reference_required` where none was named."""
    if work.model is None:
        raise ReferenceModelError(
            "reference_required", "The adapter's config names no base model that is here: give --base."
        )
    return work.model


def _check_can_run() -> None:
    """Raises CommandError `not_installed` where what runs models is missing."""
    if importlib.util.find_spec("transformers") is None:
        raise CommandError(
            "not_installed",
            "running the model needs transformers, not installed here: pip install 'loramend[train]'",
        )


def _own_base(adapter: Adapter) -> str | None:
    """The base model of the adapter's config, as --base would name it; None for a path that is not here."""
    name, revision = adapter.base_model, adapter.config.get("revision")
    if name is None or Path(name).exists():
        return name
    if isinstance(revision, str) and revision:
        name = f"{name}@{revision}"
    return name if is_hub_id(name) else None


def choose_device(device: str | None) -> str:
    """The device asked for, or the GPU where there is one.

    Raises CommandError `device_unavailable`.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CommandError("device_unavailable", f"--device {device} cannot be used: {reason}") from None
    return device
