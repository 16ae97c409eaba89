"""Data files on the command line: which file, and what its fields are called."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import typer

from loramend.cli.source import hub_name, prepare_hub_client
from loramend.contracts.data import DATA_ROLES, DataField, DataRole
from loramend.contracts.errors import DataError
from loramend.data.examples import Corpus, Dataset
from loramend.data.jsonl import DataLimits, read_jsonl

_FIELDS: tuple[DataField, ...] = get_args(DataField)
_OPTIONS: dict[DataRole, str] = {"evaluation": "evaluate"}
_FILE = re.compile(r".*\.(jsonl|ndjson|json)", re.IGNORECASE | re.DOTALL)

FieldMaps = Mapping[DataRole, Mapping[DataField, str]]


def parse_fields(given: Sequence[str] | None) -> FieldMaps:
    """--fields `[ROLE:]ours=theirs,…` as a map for each role; what names the role wins.

    Raises typer.BadParameter.
    """
    general: dict[DataField, str] = {}
    special: dict[DataRole, dict[DataField, str]] = {role: {} for role in DATA_ROLES}
    for text in given or []:
        role, colon, rest = text.partition(":")
        if colon and role in special:
            into = special[role]
        else:
            into, rest = general, text
        for item in rest.split(","):
            ours, equals, theirs = (part.strip() for part in item.partition("="))
            if not equals or not theirs or ours not in _FIELDS:
                raise typer.BadParameter(
                    f"'{item}' is not one of ours and one of the file's, such as text=sentence; ours are "
                    f"{', '.join(_FIELDS)}, and a file can be named first: {', '.join(DATA_ROLES)}",
                    param_hint="'--fields'",
                )
            into[ours] = theirs
    return {role: general | own for role, own in special.items()}


def read_data(text: str, role: DataRole, fields: FieldMaps, *, option: str) -> Dataset:
    """The data that an option names: a JSON Lines file here, or a dataset on the Hub as
    `ID[@revision][:file]`.

    Raises DataError `data_not_found` or `data_invalid`, and what fetching from the Hub raises.
    """
    path, name = _find(text, option)
    return read_jsonl(path, role, name=name, fields=fields[role])


def read_corpus(
    given: Mapping[DataRole, str | None], fields: FieldMaps, *, validation_share: float
) -> Corpus:
    """All text that a repair is given, by role. Raises what `read_data` raises."""
    read = {
        role: read_data(text, role, fields, option=f"--{_OPTIONS.get(role, role)}")
        for role, text in given.items()
        if text is not None
    }
    return Corpus(**read, validation_share=validation_share)


def dataset_name(text: str, option: str) -> tuple[str, str | None, str | None]:
    """A dataset on the Hub, `ID[@revision][:file]`, as (ID, revision, file). Raises DataError
    `data_not_found` for what can only be a file."""
    missing = DataError(
        "data_not_found",
        f"'{text}' is no file here, nor a dataset on the Hub such as namespace/name or "
        "namespace/name@main:train.jsonl.",
        where=option,
    )
    repo, colon, file = text.partition(":")
    if not colon and _FILE.fullmatch(repo):
        raise missing  # a mistyped file, which is not looked for on the network
    hub_id, revision = hub_name(repo, missing)
    if colon and not file:
        raise missing
    return hub_id, revision, file or None


def _find(text: str, option: str) -> tuple[Path, str]:
    path = Path(text).expanduser()
    if path.exists():
        return path, text
    hub_id, revision, file = dataset_name(text, option)
    prepare_hub_client()
    from loramend.cli.fetch import fetch_dataset

    return fetch_dataset(hub_id, revision, file, max_bytes=DataLimits().max_bytes, where=option)
