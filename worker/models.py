"""Which reference models a job measures against, and where they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loramend.adapter.check import check_files
from loramend.contracts.errors import LoramendError, ReferenceModelError
from loramend.contracts.request import ModelRef
from loramend.contracts.step_base import Need
from loramend.contracts.steps import Step, default_recipe, needs_of
from service.jobs.records import FetchedModel, JobRecord
from service.jobs.roots import check_model_path
from worker.hub import fetch_model
from worker.job import Work, adapter_config, materialise
from worker.settings import WorkerSettings

# Asks for a base, and can do without.
_DEFAULT = "The default recipe"


def wanted_models(
    record: JobRecord, config: Mapping[str, Any], settings: WorkerSettings
) -> dict[Need, ModelRef]:
    """The models a job reads: those the request names, and where a repair needs a base and names none, the
    one that the adapter's own config names.

    Raises ReferenceModelError `reference_required` where a step or the evaluation needs a base and the
    config's cannot be fetched.
    """
    wanted: dict[Need, ModelRef] = {}
    if record.base is not None:
        wanted["base"] = record.base
    elif record.kind == "repair" and (asking := _asks_for_base(record)):
        own = _own_base(config, settings)
        if own is not None:
            wanted["base"] = own
        elif asking != _DEFAULT:
            raise ReferenceModelError(
                "reference_required",
                f"{asking} needs the base model, and the adapter's config names none that can be fetched: "
                "give `base`.",
                where="/base",
            )
    if record.aligned is not None:
        wanted["aligned"] = record.aligned
    return wanted


def steps_of(record: JobRecord) -> list[Step]:
    """The steps to take: those asked for, or the default recipe for the models and text at hand. Raises
    RequestError `no_default_recipe`."""
    if record.steps is not None:
        return list(record.steps)
    return default_recipe(
        record.threat or "poisoned_adapter",
        base="base" in record.references,
        aligned="aligned" in record.references,
        text=record.text_given,
    )


def local_model(path: str, role: Need, settings: WorkerSettings) -> FetchedModel:
    """A model under the server's roots, checked again: the worker's roots are its own, and links change."""
    folder = check_model_path(path, settings.model_roots, where=f"/{role}")
    return FetchedModel(name=path, path=str(folder))


def download_models(work: Work, wanted: Mapping[Need, ModelRef], adapter: Path) -> dict[Need, FetchedModel]:
    """Every model wanted, downloaded into the cache or found under the roots.

    Of the Hub's only the shards that the adapter in the folder `adapter` is measured against are taken, but
    all of a base that the job runs, with its tokenizer.
    """
    limits = work.settings.adapter_limits()
    needed = {module.weight for module in check_files(adapter, limits).layout.modules}
    models: dict[Need, FetchedModel] = {}
    for role, ref in wanted.items():
        if ref.path is not None:
            models[role] = local_model(ref.path, role, work.settings)
            continue
        folder, name = fetch_model(
            ref,
            work.token(),
            work.settings,
            needed,
            work.keeper.on_progress,
            whole=role == "base" and work.record.runs_model,
            where=f"/{role}",
        )
        models[role] = FetchedModel(
            name=name,
            path=str(folder),
            hub_id=ref.hub_id,
            revision=name.rpartition("@")[2],
            files=tuple(sorted(path.name for path in folder.iterdir())),
        )
    return models


def settle_models(work: Work) -> bool:
    """Have every wanted model at hand without asking the Hub, if that can be. Returns whether it can."""
    wanted = wanted_models(work.record, adapter_config(work.record, work.tools.storage), work.settings)
    models = dict(work.record.references)
    for role, ref in wanted.items():
        if ref.path is not None:
            models[role] = local_model(ref.path, role, work.settings)
        elif role not in models:
            return False
        elif not _is_here(models[role]):
            # Fetched by a worker on another machine, with another cache: only this one can do it here.
            adapter = materialise(work.record.input, work.folder / "adapter", work.tools.storage)
            there = ModelRef(hub_id=ref.hub_id, revision=models[role].revision)
            models |= download_models(work, {role: there}, adapter)
    if models != work.record.references:
        work.update(references=models)
    return True


def _is_here(model: FetchedModel) -> bool:
    """Whether all of it lies on this machine: another job may have fetched a part."""
    if model.path is None:
        return False
    folder = Path(model.path)
    return folder.is_dir() and all((folder / name).exists() for name in model.files)


def _asks_for_base(record: JobRecord) -> str | None:
    """Who needs the base model of a repair, None where nobody does."""
    if record.steps is not None and "base" in needs_of(record.steps):
        return f"Step {next(step.type for step in record.steps if 'base' in step.needs)}"
    if record.evaluation is not None:
        return "The evaluation"
    return _DEFAULT if record.steps is None else None


def _own_base(config: Mapping[str, Any], settings: WorkerSettings) -> ModelRef | None:
    """The base model that the adapter's config names, where it is one that may be fetched."""
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        return None
    try:
        ref = ModelRef.model_validate(name)
        if ref.path is not None:
            check_model_path(ref.path, settings.model_roots)
            return ref
        return ModelRef(hub_id=ref.hub_id, revision=revision if isinstance(revision, str) else None)
    except (ValidationError, LoramendError):
        return None
