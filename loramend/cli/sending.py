"""What a request to a server names, sent there first where it is on this machine."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import typer
from pydantic import ValidationError

from loramend.adapter.archive import kind_of, pack
from loramend.adapter.check import check_folder
from loramend.adapter.config import CONFIG_FILE
from loramend.adapter.locate import Found, find_adapter
from loramend.cli.client.upload import upload
from loramend.cli.data import FieldMaps, dataset_name, read_data
from loramend.cli.errors import CommandError
from loramend.cli.progress import progress_on_stderr
from loramend.cli.source import hub_name
from loramend.contracts.data import DataRole
from loramend.contracts.errors import AdapterError
from loramend.contracts.request import ModelRef

_OPTIONS: dict[DataRole, str] = {"evaluation": "--evaluate"}


class Sending:
    """Uploads over one connection; packed files go when the block ends.

    numbered  whether the labels of the evaluation's examples are numbers, as far as they were read here
    """

    def __init__(self, client: httpx.Client, fields: FieldMaps) -> None:
        self._client = client
        self._fields = fields
        self._scratch = tempfile.TemporaryDirectory(prefix="loramend-")
        self.numbered = False

    def __enter__(self) -> "Sending":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.cleanup()

    def texts(self, given: Mapping[DataRole, str | None]) -> dict[DataRole, dict[str, Any]]:
        """Each text as a request names it. All are read before the first is sent, so that a mistake in one
        is found before any upload. Raises DataError, and the server's refusals."""
        files: dict[DataRole, Path] = {}
        refs: dict[DataRole, dict[str, Any]] = {}
        for role, text in given.items():
            if text is None:
                continue
            option = _OPTIONS.get(role, f"--{role}")
            path = Path(text).expanduser()
            if path.exists():
                data = read_data(text, role, self._fields, option=option)
                if role == "evaluation":
                    self.numbered = isinstance(data.examples[0].label, int)
                files[role] = path
            else:
                hub_id, revision, file = dataset_name(text, option)
                refs[role] = {"hub_id": hub_id, "revision": revision, "file": file}
        for role, path in files.items():
            refs[role] = {"upload": self._upload(path)}
        return {role: {**ref, "fields": self._fields[role]} for role, ref in refs.items()}

    def adapter(self, text: str) -> dict[str, Any]:
        """The adapter as a request's `source`: its own files, after the checks that need no tensor, or an
        archive as it is; a Hub ID where nothing of that name is here. Raises AdapterError."""
        path = Path(text).expanduser()
        if not path.exists():
            missing = AdapterError(
                "adapter_not_found",
                f"'{text}' is no file or folder here, nor a Hub ID such as namespace/name.",
            )
            hub_id, revision = hub_name(text, missing)
            return {"hub_id": hub_id, "revision": revision}
        if path.is_file() and kind_of(path) is not None:
            return {"upload": self._upload(path)}
        check_folder(path)
        return {"upload": self._upload(self._packed(find_adapter(path)))}

    def _packed(self, found: Found) -> Path:
        """The adapter's own files as an archive: its folder may hold much else."""
        scratch = Path(self._scratch.name)
        folder = scratch / "adapter"
        folder.mkdir()
        for name in found.files:
            target = folder / (name if name == CONFIG_FILE else "adapter_model.safetensors")
            _link(found.root / name, target)
        pack(folder, scratch / "adapter.tar.gz")
        return scratch / "adapter.tar.gz"

    def _upload(self, file: Path) -> str:
        with progress_on_stderr({"fetch": "Sending"}) as on_progress:
            return upload(self._client, file, file.name, on_progress)


def model_reference(text: str, option: str) -> dict[str, Any]:
    """--base or --aligned as a request names it: the full path of a folder that is here, which the server
    finds only where it shares the disk, another path as it is, or a Hub ID. Raises typer.BadParameter."""
    path = Path(text).expanduser()
    if path.exists():
        return {"path": str(path.absolute())}
    given: dict[str, Any] = {"path": text}
    if not text.startswith(("/", ".", "~")):
        hub_id, at, revision = text.partition("@")
        given = {"hub_id": hub_id, "revision": revision if at else None}
    try:
        return ModelRef.model_validate(given).model_dump()
    except ValidationError:
        raise typer.BadParameter(
            f"'{text}' is neither a path nor a Hub ID such as namespace/name or namespace/name@main",
            param_hint=f"'{option}'",
        ) from None


def hub_token() -> str:
    """This user's own Hub token. Raises CommandError `not_logged_in` where there is none."""
    token = os.environ.get("HF_TOKEN")
    if not token:
        try:
            from huggingface_hub import get_token
        except ImportError:
            token = None
        else:
            token = get_token()
    if not token:
        raise CommandError(
            "not_logged_in", "--send-hub-token found none: set HF_TOKEN, or log in with `hf auth login`"
        )
    return token


def _link(file: Path, target: Path) -> None:
    """Hard-linked where it can be; copied else, and where it is a link itself, which would not be packed."""
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)
