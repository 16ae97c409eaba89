import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loramend.adapter.archive import extract, kind_of, pack
from loramend.adapter.limits import Limits, MiB
from loramend.contracts.errors import AdapterError

FILES = {"adapter_config.json": b"{}", "deep/down/adapter_model.safetensors": b"weights" * 1000}


def zipped(members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(info)
            archive.writestr(info, data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w", *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def unpack(tmp_path: Path, content: bytes, limits: Limits | None = None) -> dict[str, bytes]:
    (tmp_path / "archive").write_bytes(content)
    into = extract(tmp_path / "archive", tmp_path / "inner" / "into", limits or Limits())
    return {
        path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()
    }


def refusal(tmp_path: Path, content: bytes, limits: Limits | None = None) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        unpack(tmp_path, content, limits)
    left = [path for path in tmp_path.rglob("*") if path.name not in ("archive", "inner", "into")]
    assert left == []
    return caught.value


@pytest.mark.parametrize("make", [zipped, tarred, lambda files: tarred(files, "w:gz")])
def test_unpacks_by_content(make: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    assert unpack(tmp_path, make(FILES)) == FILES


def test_folders_and_dots_are_fine(tmp_path: Path) -> None:
    content = tarred(
        {"./a": b"1", "d/b": b"2"}, "w:gz", special(".", tarfile.DIRTYPE), special("d", tarfile.DIRTYPE)
    )
    assert unpack(tmp_path, content) == {"a": b"1", "d/b": b"2"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar(form: int, tmp_path: Path) -> None:
    """Names that need an extended header or a prefix, folders, times with fractions, a comment for all."""
    long = "/".join(["n" * 60] * (3 if form == tarfile.USTAR_FORMAT else 7))
    files = {"ü": b"1", long: b"2" * 513, "empty": b"", "folder/block": b"3" * 512}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers={"comment": "of all"}) as archive:
        archive.addfile(special("folder", tarfile.DIRTYPE))
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1700000000.25
            archive.addfile(info, io.BytesIO(data))
    assert unpack(tmp_path, buffer.getvalue()) == files


def test_a_streamed_zip(tmp_path: Path) -> None:
    """Sizes that stand behind the data, as where a zip is written to a pipe."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    buffer = Pipe()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    assert unpack(tmp_path, buffer.getvalue()) == FILES


UNSAFE_NAMES = [
    "../escape",
    "a/../../escape",
    "/absolute",
    "//absolute",
    "C:/windows",
    "a\\..\\b",
    "tab\there",
    "x" * 600,
    "a/" + "ü" * 200,
]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_names_that_leave_or_confuse_are_refused(
    make: Callable[[dict[str, bytes]], bytes], name: str, tmp_path: Path
) -> None:
    assert refusal(tmp_path, make({"fine": b"1", name: b"2"})).code == "archive_unsafe"


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A"), ("a", "./a"), ("a", "a/b"), ("ä", "a\u0308")])
def test_names_that_come_twice_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert refusal(tmp_path, buffer.getvalue()).code == "archive_unsafe"


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "fine"),
        special("device", tarfile.CHRTYPE),
        special("block", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name,
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_and_devices_in_tar_are_refused(mode: str, member: tarfile.TarInfo, tmp_path: Path) -> None:
    assert refusal(tmp_path, tarred({"fine": b"1"}, mode, member)).code == "archive_unsafe"


def test_a_link_in_zip_is_refused(tmp_path: Path) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16

    assert refusal(tmp_path, zipped({"link": b"/etc/passwd"}, link)).code == "archive_unsafe"


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    content = bytearray(zipped({"secret": b"1"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    error = refusal(tmp_path, bytes(content))
    assert error.code == "archive_unsafe"
    assert "encrypted" in error.detail


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(method: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a", b"1" * 100)
    assert refusal(tmp_path, buffer.getvalue()).code == "archive_invalid"


SMALL = Limits(max_unpacked_bytes=3 * MiB, ratio_free_bytes=2 * MiB, max_ratio=10)


@pytest.mark.parametrize("make", [zipped, tarred, lambda files: tarred(files, "w:gz")])
def test_bombs_are_stopped(make: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    zeros = make({f"zeros{index}": b"\0" * MiB for index in range(8)})
    assert refusal(tmp_path, zeros, SMALL).code == "archive_too_large"


def test_the_ratio_counts_only_past_what_is_free(tmp_path: Path) -> None:
    content = zipped({"zeros": b"\0" * (MiB + 1)})
    assert len(content) * 10 < MiB
    assert unpack(tmp_path, content, SMALL) == {"zeros": b"\0" * (MiB + 1)}


def test_a_zip_that_lies_about_sizes_is_stopped(tmp_path: Path) -> None:
    content = bytearray(zipped({"zeros": b"\0" * (8 * MiB)}))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(mark) + offset, 10)
    assert refusal(tmp_path, bytes(content), SMALL).code in ("archive_invalid", "archive_too_large")


def test_caps_on_members_and_archive(tmp_path: Path) -> None:
    many = {f"file{index}": b"" for index in range(50)}
    for content in (zipped(many), tarred(many)):
        assert refusal(tmp_path, content, Limits(max_members=49)).code == "archive_too_large"
    assert refusal(tmp_path, zipped(FILES), Limits(max_archive_bytes=10)).code == "archive_too_large"


def test_a_zip_directory_of_millions_is_not_read(tmp_path: Path) -> None:
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 40 * MiB, 30, 0)
    content = b"PK\x03\x04" + b"\0" * 26 + b"\0" * (40 * MiB) + end
    assert refusal(tmp_path, content).code == "archive_too_large"


def test_a_tar_header_of_megabytes_is_not_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    info = special("x", tarfile.XHDTYPE)
    info.size = 64 * MiB
    buffer.write(info.tobuf(tarfile.USTAR_FORMAT))
    buffer.write(b"\0" * (64 * MiB))
    assert refusal(tmp_path, buffer.getvalue()).code == "archive_too_large"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b" + b"x" * 50, b"PK\x03\x04" + b"x" * 50])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    assert refusal(tmp_path, content).code == "archive_invalid"


@pytest.mark.parametrize("make", [zipped, tarred, lambda files: tarred(files, "w:gz")])
def test_truncated_archives_are_refused_or_lack_members(
    make: Callable[[dict[str, bytes]], bytes], tmp_path: Path
) -> None:
    whole = make(FILES)
    codes = set()
    for cut in range(1, 12):
        folder = tmp_path / str(cut)
        folder.mkdir()
        content = whole[: len(whole) * cut // 12]
        try:
            found = unpack(folder, content)
        except AdapterError as error:
            codes.add(error.code)
        else:
            assert FILES.items() >= found.items()
    assert codes == {"archive_invalid"}


def test_a_pickled_model_is_no_archive(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "archive")
    assert refusal(tmp_path, (tmp_path / "archive").read_bytes()).code == "pickle_refused"


def test_only_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zipped(FILES))
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "mine").write_text("kept")
    with pytest.raises(ValueError, match="not empty"):
        extract(tmp_path / "archive", tmp_path / "into", Limits())
    assert (tmp_path / "into" / "mine").read_text() == "kept"


def test_kind_of(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content, kind in (
        (zipped(FILES), "zip"),
        (tarred(FILES), "tar"),
        (tarred(FILES, "w:gz"), "tar.gz"),
        (b"\x10\0\0\0\0\0\0\0{}", None),
    ):
        path.write_bytes(content)
        assert kind_of(path) == kind


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz"])
def test_pack_is_undone_by_extract_and_always_the_same(name: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for file, data in reversed(FILES.items()) if folder == "two" else FILES.items():
            path = tmp_path / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600 if folder == "two" else 0o644)
        pack(tmp_path / folder, tmp_path / f"{folder}-{name}")
    one = (tmp_path / f"one-{name}").read_bytes()
    assert one == (tmp_path / f"two-{name}").read_bytes()
    (tmp_path / "back").mkdir()
    assert unpack(tmp_path / "back", one) == FILES


def test_pack_leaves_nothing_behind_on_failure(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="suffix"):
        pack(tmp_path / "folder", tmp_path / "a.rar")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def only_adapter_errors(root: Path, content: bytes) -> None:
    """Unpacking ends in files below `into` or in an AdapterError, and touches nothing else."""
    (root / "archive").write_bytes(content)
    into = root / "place" / "into"
    try:
        extract(root / "archive", into, Limits(max_unpacked_bytes=MiB))
    except AdapterError:
        assert not into.exists() or not any(into.iterdir())
    else:
        for path in sorted(into.rglob("*"), reverse=True):
            assert not path.is_symlink()
            path.rmdir() if path.is_dir() else path.unlink()
    assert {path.relative_to(root).as_posix() for path in root.rglob("*")} <= {
        "archive",
        "place",
        "place/into",
    }


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archives")


@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"\0" * 257 + b"ustar"]),
    content=st.binary(max_size=600),
)
def test_arbitrary_bytes(start: bytes, content: bytes, playground: Path) -> None:
    only_adapter_errors(playground, start + content)


@given(data=st.data())
@settings(max_examples=100)
def test_damaged_archives(data: st.DataObject, playground: Path) -> None:
    make = data.draw(st.sampled_from([zipped, tarred, lambda files: tarred(files, "w:gz")]))
    content = bytearray(make({"a/b": b"1" * 700, "c": b"2"}))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    only_adapter_errors(playground, bytes(content))


@given(
    names=st.lists(
        st.lists(st.sampled_from(["a", "A", "..", ".", "", "b", "\\", "ä"]), min_size=1, max_size=4).map(
            "/".join
        ),
        min_size=1,
        max_size=4,
    )
)
def test_arbitrary_names(names: list[str], playground: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    only_adapter_errors(playground, buffer.getvalue())
