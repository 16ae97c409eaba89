"""The text that a request for a repair brings: form parts, uploads, and what the steps need of it."""

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from loramend.contracts.data import DATA_ROLES, DataRef, DataRole
from loramend.contracts.errors import DataError, RequestError
from loramend.contracts.request import RepairRequest
from loramend.contracts.steps import text_of
from service.api.body import FormFile
from service.api.caller import Caller
from service.api.state import Services
from service.jobs.intake import check_data
from service.jobs.records import data_pointer

_MAX_NAME = 200


def with_parts(document: dict[str, Any], files: Mapping[str, FormFile]) -> dict[str, Any]:
    """The document with the form's files of text named in it, by their digests.

    Raises RequestError `request_invalid` where it names another source for one of them.
    """
    named = dict(document)
    for role in DATA_ROLES:
        if role not in files:
            continue
        *outer, last = data_pointer(role).split("/")[1:]
        holder = named
        for part in outer:
            inner = holder.get(part)
            if inner is not None and not isinstance(inner, dict):
                return named  # which the schema refuses
            holder[part] = dict(inner or {})
            holder = holder[part]
        given = holder.get(last)
        if given is None:
            given = {}
        if isinstance(given, dict):
            if {"upload", "hub_id"} & given.keys():
                raise RequestError(
                    "request_invalid",
                    f"Leave upload and hub_id out: the form's part {role} is the data.",
                    where=data_pointer(role),
                )
            holder[last] = {**given, "upload": files[role].sha256}
    return named


def data_of(asked: RepairRequest) -> dict[DataRole, DataRef]:
    """The files of text that the request names, by their roles."""
    spec = asked.evaluation
    named: dict[DataRole, DataRef | None] = {
        "clean": asked.clean,
        "unlabelled": asked.unlabelled,
        "validation": asked.validation,
        "evaluation": spec.data if spec else None,
        "triggered": spec.triggered if spec else None,
    }
    return {role: ref for role, ref in named.items() if ref is not None}


def check_has_data(asked: RepairRequest) -> None:
    """Raises DataError `data_required` where a step or the evaluation lacks the text it works on."""
    need = text_of(asked.steps or [])
    if asked.clean is None and (need == "clean" or (need == "text" and asked.unlabelled is None)):
        step = next(step.type for step in asked.steps or [] if step.text == need)
        wanted = (
            "labelled examples: give `clean`"
            if need == "clean"
            else "clean text: give `clean` or `unlabelled`"
        )
        raise DataError("data_required", f"Step {step} learns from {wanted}.", where="/clean")
    if asked.evaluation is not None and asked.evaluation.data is None:
        raise DataError(
            "data_required",
            "An evaluation needs labelled examples: give `evaluation.data`, or the form's part `evaluation`.",
            where=data_pointer("evaluation"),
        )


def checked_data(
    services: Services,
    caller: Caller,
    data: Mapping[DataRole, DataRef],
    parts: Mapping[str, FormFile],
    folder: Path,
) -> dict[DataRole, tuple[Path, str]]:
    """The files that came with the request or were uploaded before, read through and found good: where they
    are, and what to call them. Those of the Hub are left to a worker. Raises DataError."""
    files: dict[DataRole, tuple[Path, str]] = {}
    for role, ref in data.items():
        if ref.upload is None:
            continue
        where = data_pointer(role)
        if role in parts:
            path, name = parts[role].path, _name(parts[role].filename) or f"{role}.jsonl"
        else:
            path, name = folder / f"{role}.jsonl", f"{role}.jsonl"
            stored = services.upload(ref.upload, caller)
            if stored is None:
                raise DataError(
                    "data_not_found",
                    f"No upload has that digest: PUT it to /uploads/{ref.upload} first.",
                    where=f"{where}/upload",
                )
            services.storage.fetch(stored, path)
        check_data(path, role, name, ref.fields, services.settings.data_limits(), where=where)
        files[role] = path, name
    return files


def _name(filename: str) -> str:
    """A client's file name without its folders, fit to be shown."""
    name = PureWindowsPath(filename).name
    return "".join(character for character in name if character.isprintable())[:_MAX_NAME].strip(". ")
