"""Output folders appear whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from loramend.cli.errors import CommandError
from loramend.cli.output import new_folder, write_text


def fill(target: Path, text: str = "new", *, replace: bool = False) -> None:
    with new_folder(target, replace=replace) as folder:
        (folder / "file").write_text(text)


def fill_half(target: Path, error: BaseException | type[BaseException], *, replace: bool = False) -> None:
    with new_folder(target, replace=replace) as folder:
        (folder / "file").write_text("half")
        raise error


def repaired(folder: Path) -> Path:
    """What an earlier repair left."""
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"schema_version": "1.0", "kind": "repair"}))
    (folder / "old").write_text("old")
    return folder


def test_it_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "made" / "out"
    with new_folder(target) as folder:
        (folder / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert [entry.name for entry in target.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        fill_half(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_would_have_been_replaced(tmp_path: Path) -> None:
    out = repaired(tmp_path / "out")
    with pytest.raises(ValueError, match="half"):
        fill_half(out, ValueError("half"), replace=True)
    assert (out / "old").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_of_someone_elses_is_never_replaced(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(CommandError, match="not empty: name a new one"):
        fill(tmp_path / "out", replace=replace)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_an_earlier_repair_is_replaced_when_asked(tmp_path: Path) -> None:
    out = repaired(tmp_path / "out")
    with pytest.raises(CommandError, match="--force"):
        fill(out)
    assert (out / "old").exists()
    fill(out, replace=True)
    assert sorted(entry.name for entry in out.iterdir()) == ["file"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(CommandError, match="is a file"):
        fill(tmp_path / "out", replace=True)


def test_its_mode_is_the_users(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        fill(tmp_path / "out")
        write_text(tmp_path / "report.json", "{}")
    finally:
        os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o640


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("old")
    write_text(tmp_path / "report.json", "new")
    assert (tmp_path / "report.json").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]
