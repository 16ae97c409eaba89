"""Every hostile adapter through the real readers: its code and no other, in bounded time and memory, and
nothing left behind."""

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loramend.adapter.archive import extract, kind_of, pack
from loramend.adapter.check import check_folder
from loramend.adapter.limits import MiB
from loramend.adapter.read import read_adapter
from loramend.contracts.errors import AdapterError, ErrorCode
from tests.hostile.case import LIMITS, Case
from tests.hostile.corpus import corpus

CASES = corpus()

CPU_SECONDS = 5.0
MEMORY = 192 * MiB
OUTSIDE = Path("/tmp/loramend-hostile-escaped")

FOLDERS = [case for case in CASES if case.kind == "files"]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of which everything is watched: temporary files lie there too."""
    room = tmp_path / "room"
    (room / "temporary").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(room / "temporary"))
    yield room
    assert not OUTSIDE.exists()


def unpacked(source: Path, into: Path) -> Path:
    """What the source holds, as the service takes it: archives by their content."""
    return extract(source, into, LIMITS) if source.is_file() else source


def outcome(read: Callable[[], object]) -> ErrorCode | None:
    """The code it is refused with, or None. Any other exception than ours escapes."""
    try:
        read()
    except AdapterError as error:
        caught = error
    else:
        return None
    # What is shown to people holds nothing that moves their cursor.
    assert str(caught).isprintable()
    return caught.code


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


def outside(room: Path) -> dict[str, int]:
    """All but what is unpacked."""
    return {name: size for name, size in listing(room).items() if not name.startswith("inner/into")}


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Time and memory that reading may take; memory where the system tells a process its peak."""
    before = _reset_peak()
    started = time.process_time()
    yield
    assert time.process_time() - started < CPU_SECONDS
    if before is not None:
        assert _status("VmHWM") - before < MEMORY


def _reset_peak() -> int | None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return None


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_the_corpus_is_large_and_named() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_refused_with_its_code(case: Case, room: Path) -> None:
    source = case.write(room / "source")
    into = room / "inner" / "into"
    into.mkdir(parents=True)
    before = outside(room)
    with bounded():
        assert outcome(lambda: read_adapter(unpacked(source, into), LIMITS)) == case.code
    assert outside(room) == before
    if (case.code or "").startswith("archive_"):
        assert listing(into) == {}


@pytest.mark.parametrize("case", FOLDERS, ids=lambda case: case.name)
def test_the_check_without_tensors_lets_nothing_else_escape(case: Case, room: Path) -> None:
    """The API's own look: what it takes although it is refused later, it takes for its tensors' values."""
    source = case.write(room / "source")
    found = outcome(lambda: check_folder(source, LIMITS))
    assert found == case.code or (found is None and case.code in ("tensor_not_finite", "config_invalid"))


@pytest.mark.parametrize(
    ("case", "suffix"),
    [(case, (".zip", ".tar.gz")[index % 2]) for index, case in enumerate(FOLDERS)],
    ids=lambda value: value.name if isinstance(value, Case) else value,
)
def test_is_refused_alike_in_an_archive(case: Case, suffix: str, room: Path) -> None:
    """Packed and unpacked, as an upload is."""
    packed = room / f"upload{suffix}"
    pack(case.write(room / "source"), packed)
    assert kind_of(packed) is not None
    with bounded():
        assert outcome(lambda: read_adapter(extract(packed, room / "into", LIMITS), LIMITS)) == case.code
    assert {path.name for path in room.iterdir()} == {"source", "into", "temporary", packed.name}
    assert listing(room / "temporary") == {}
