"""Files by their digest: in a folder, and on a real server that speaks S3."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from loramend.contracts.errors import LoramendError
from service.jobs.records import BlobRef
from service.jobs.storage import CHUNK, Storage
from tests.service.jobs.jobs import blob

KINDS = ["file", pytest.param("s3", marks=pytest.mark.e2e)]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "file":
        return Storage((tmp_path / "blobs").as_uri())
    bucket, options = request.getfixturevalue("s3_bucket")
    return Storage(f"{bucket}/{tmp_path.name}", options)


def everything(storage: Storage) -> list[str]:
    try:
        return list(storage._fs.find(storage._root))
    except FileNotFoundError:
        return []


def test_what_was_put_comes_back(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(CHUNK * 6 + 17)
    ref = storage.put_stream([data[:10], data[10:], b""])
    assert ref == BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    assert b"".join(storage.open(ref)) == data
    assert b"".join(storage.open(ref, 5, 9)) == data[5:9]
    assert b"".join(storage.open(ref, CHUNK - 1, CHUNK + 1)) == data[CHUNK - 1 : CHUNK + 1]
    assert b"".join(storage.open(ref, len(data) - 3)) == data[-3:]
    assert storage.exists(ref.sha256) == ref
    storage.fetch(ref, tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == data
    assert storage.put_file(tmp_path / "deep" / "copy", expect=ref.sha256) == ref
    assert len(everything(storage)) == 1
    storage.delete(ref.sha256)
    storage.delete(ref.sha256)
    assert storage.exists(ref.sha256) is None
    assert storage.put_bytes(b"").size == 0


def test_sizes_are_those_of_the_whole_blobs_alone(storage: Storage) -> None:
    assert storage.sizes() == {}
    refs = [storage.put_bytes(b"x" * size) for size in (0, 5, 1000)]
    storage._fs.pipe_file(f"{storage._root}/temporary/unfinished", b"y" * 77)
    assert storage.sizes() == {ref.sha256: ref.size for ref in refs}


def test_too_much_or_something_else_is_not_kept(storage: Storage) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 100
        yield b"x"
        raise AssertionError("read past the cap")

    with pytest.raises(LoramendError) as too_large:
        storage.put_stream(chunks(), max_bytes=100)
    assert too_large.value.code == "payload_too_large"
    with pytest.raises(LoramendError) as other:
        storage.put_stream([b"y"], expect=blob("x").sha256)
    assert other.value.code == "digest_mismatch"
    assert everything(storage) == []


def test_a_sender_that_breaks_off_leaves_nothing(storage: Storage) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * (CHUNK * 6)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        storage.put_stream(chunks())
    assert everything(storage) == []


def test_a_missing_blob_says_so_before_the_first_byte(storage: Storage) -> None:
    with pytest.raises(LoramendError) as missing:
        storage.open(blob("nowhere"))
    assert missing.value.code == "storage_unavailable"


def test_ready_leaves_nothing(storage: Storage) -> None:
    storage.ready()
    assert everything(storage) == []


def test_leftovers_of_killed_writers_go(storage: Storage) -> None:
    kept = storage.put_bytes(b"kept")
    storage._fs.pipe_file(f"{storage._root}/temporary/left", b"half")
    if storage._local:
        os.utime(f"{storage._root}/temporary/left", (0, 0))
    storage.remove_leftovers(timedelta(days=50_000))
    # In a local folder nobody holds it; elsewhere only its age tells.
    assert len(everything(storage)) == (1 if storage._local else 2)
    storage.remove_leftovers(timedelta(hours=-1))
    assert len(everything(storage)) == 1
    assert storage.exists(kept.sha256)


def test_what_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    storage = Storage((tmp_path / "blobs").as_uri())

    def chunks() -> Iterator[bytes]:
        yield b"one"
        storage.remove_leftovers(timedelta(hours=1))
        yield b"two"

    assert storage.exists(storage.put_stream(chunks()).sha256)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux has a file that is always full."""
    temporary = tmp_path / "blobs" / "temporary"
    temporary.mkdir(parents=True)
    name = uuid.uuid4()
    (temporary / name.hex).symlink_to("/dev/full")
    monkeypatch.setattr(uuid, "uuid4", lambda: name)
    storage = Storage((tmp_path / "blobs").as_uri())
    with pytest.raises(LoramendError) as full:
        storage.put_bytes(b"x" * 100_000)
    assert full.value.code == "disk_full"
    assert list(temporary.iterdir()) == []


def test_a_damaged_blob_is_noticed(tmp_path: Path) -> None:
    storage = Storage((tmp_path / "blobs").as_uri())
    ref = storage.put_bytes(b"right")
    next((tmp_path / "blobs" / "sha256").rglob(ref.sha256)).write_bytes(b"wrong")
    with pytest.raises(LoramendError, match="damaged"):
        storage.fetch(ref, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_storage_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = Storage((tmp_path / "file" / "blobs").as_uri())
    for call in (storage.ready, lambda: storage.put_bytes(b"x")):
        with pytest.raises(LoramendError) as refused:
            call()
        assert refused.value.code == "storage_unavailable"


@pytest.mark.e2e
def test_an_object_store_that_does_not_answer() -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "key": "k",
        "secret": "s",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    with pytest.raises(LoramendError) as refused:
        Storage("s3://bucket", options).ready()
    assert refused.value.code == "storage_unavailable"
