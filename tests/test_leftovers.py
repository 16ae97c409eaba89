"""What a killed process leaves is told from what a living one uses."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loramend.leftovers import claim, own_folder, remove_abandoned

HOLDER = """
import os, sys
from loramend.leftovers import claim
for path in sys.argv[1:]:
    assert claim(os.open(path, os.O_RDONLY))
print("held", flush=True)
sys.stdin.read()
"""


def test_what_a_living_process_holds_stays_until_it_is_killed(tmp_path: Path) -> None:
    held = [tmp_path / "held.file", tmp_path / "held.folder"]
    left = [tmp_path / "left.file", tmp_path / "left.folder"]
    for path in (held[0], left[0], tmp_path / "other"):
        path.write_text("x")
    for path in (held[1], left[1]):
        (path / "inner").mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, *map(str, held)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        remove_abandoned(tmp_path, "*.f*")
        assert sorted(tmp_path.iterdir()) == [*held, tmp_path / "other"]
        holder.kill()
    remove_abandoned(tmp_path, "*.f*")
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]
    remove_abandoned(tmp_path / "nowhere")


def test_a_file_that_was_removed_meanwhile_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    remove_abandoned(tmp_path)
    assert not claim(descriptor)
    os.close(descriptor)


def test_links_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    remove_abandoned(tmp_path, "link")
    assert (tmp_path / "link").is_symlink()


def test_many_that_start_at_once_each_have_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its lock a folder looks abandoned to the others."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(own_folder, ["worker-"] * 100))
    assert sorted(tmp_path.iterdir()) == sorted(path for path, _ in made)
    for _, descriptor in made:
        os.close(descriptor)
