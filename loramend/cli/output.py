"""What a command leaves: output folders and files that appear whole or not at all, and JSON on stdout."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from loramend.cli.errors import CommandError
from loramend.contracts.files import REPORT

if TYPE_CHECKING:
    from pydantic import BaseModel


@contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and vanishes when it does not.

    replace  let `target` be a folder that an earlier run filled (it holds a report.json of ours); its
             contents go. Any other folder that is not empty is never touched.

    Raises CommandError `output_exists` before anything is done.
    """
    target = target.expanduser().resolve()
    check_free(target, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield made
        made.chmod(0o777 & ~_umask())  # mkdtemp's 0700 was for the unfinished folder
        _move(made, target, replace=replace)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _move(made: Path, target: Path, *, replace: bool) -> None:
    """Put `made` where `target` is; what was there goes once that has worked."""
    if not replace or not target.exists():
        made.rename(target)  # over an empty folder too; one that has filled meanwhile is an OSError
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    made = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        made.chmod(0o666 & ~_umask())
        made.replace(file)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def print_json(document: Any) -> None:
    """A document on stdout, indented; names in it are escaped where they are not ASCII, so that none can
    steer the terminal."""
    typer.echo(json.dumps(document, indent=2))


def print_model(model: "BaseModel") -> None:
    """The same of a pydantic model."""
    print_json(json.loads(model.model_dump_json()))


def check_writable(file: Path, option: str) -> None:
    """Raises CommandError `output_exists` where no file can be written there."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise CommandError("output_exists", f"{option} {file} is not a file that can be written")


def check_free(target: Path, *, replace: bool) -> None:
    """Raises CommandError `output_exists` where the folder cannot become a new one."""
    if not target.exists():
        return
    if not target.is_dir():
        raise CommandError("output_exists", f"{target} is a file: name a folder with --out")
    if not any(target.iterdir()):
        return
    ours = _is_ours(target)
    if replace and ours:
        return
    remedy = "pass --force to replace it, or name another" if ours else "name a new one with --out"
    raise CommandError("output_exists", f"the folder {target} is not empty: {remedy}")


def _is_ours(folder: Path) -> bool:
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and "schema_version" in report and report.get("kind") == "repair"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
