import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from loramend.leftovers import claim
from loramend.reference.cache import SubspaceCache, key_of
from loramend.reference.models import Subspace
from loramend.reference.range_finder import empty_subspace, leading_triplets
from tests.reference.checkpoints import normal

KEY = key_of("displacement", ["a", "b"], 4)


def some(seed: int = 0) -> Subspace:
    return leading_triplets(normal(30, 20, seed=seed), 4)


def same(x: Subspace | None, y: Subspace) -> bool:
    return (
        x is not None
        and all(torch.equal(getattr(x, name), getattr(y, name)) for name in "USV")
        and x.norm == y.norm
        and x.energy == y.energy
    )


@pytest.mark.parametrize("subspace", [some(), empty_subspace(5, 3)])
def test_what_was_put_comes_back_to_the_bit(tmp_path: Path, subspace: Subspace) -> None:
    assert SubspaceCache(tmp_path).get(KEY) is None
    SubspaceCache(tmp_path).put(KEY, subspace)
    found = SubspaceCache(tmp_path).get(KEY)
    assert same(found, subspace)
    assert found
    assert found.U.shape == subspace.U.shape
    assert found.V.shape == subspace.V.shape


def test_keys_tell_every_input_apart() -> None:
    keys = {
        key_of(kind, inputs, width)
        for kind in ("base", "displacement")
        for inputs in (["a", "b"], ["b", "a"], ["ab"], ["a"])
        for width in (32, 64)
    }
    assert len(keys) == 16


@pytest.mark.parametrize("harm", ["cut", "empty", "flip", "garbage"])
def test_a_harmed_entry_is_deleted_and_absent(tmp_path: Path, harm: str) -> None:
    cache = SubspaceCache(tmp_path)
    cache.put(KEY, some())
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    if harm == "flip":
        data[-100] ^= 1
    file.write_bytes(bytes({"cut": data[:-8], "empty": b"", "garbage": os.urandom(999)}.get(harm, data)))
    assert cache.get(KEY) is None
    assert not list(tmp_path.iterdir())
    cache.put(KEY, some())
    assert same(cache.get(KEY), some())


def test_over_the_cap_the_ones_unused_for_longest_go(tmp_path: Path) -> None:
    SubspaceCache(tmp_path).put("size", some())
    size = (tmp_path / "size.safetensors").stat().st_size
    cache = SubspaceCache(tmp_path, max_bytes=3 * size)
    now = time.time()
    for age, key in [(300, "size"), (200, "old"), (100, "older")]:
        cache.put(key, some())
        os.utime(tmp_path / f"{key}.safetensors", (now - age, now - age))
    assert cache.get("size")  # used again, so "old" is the oldest now
    cache.put("new", some())
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "older", "size"]


def test_files_left_by_killed_writers_go(tmp_path: Path) -> None:
    (tmp_path / "abandoned.part").write_bytes(b"x")
    descriptor = os.open(tmp_path / "active.part", os.O_WRONLY | os.O_CREAT)
    claim(descriptor)
    SubspaceCache(tmp_path).put(KEY, some())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["active.part", f"{KEY}.safetensors"]
    os.close(descriptor)


def test_a_folder_that_cannot_be_written_costs_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = SubspaceCache(tmp_path / "file" / "cache")
    cache.put(KEY, some())
    assert cache.get(KEY) is None
    assert "not cached" in caplog.text


def hammer(folder: Path, worker: int) -> None:
    """Put and get the same few keys under a cap that keeps evicting; whatever comes back must be whole."""
    subspaces = [some(seed) for seed in range(3)]
    cache = SubspaceCache(folder, max_bytes=9000)
    for turn in range(150):
        seed = (turn + worker) % 3
        found = cache.get(f"key{seed}")
        assert found is None or same(found, subspaces[seed])
        cache.put(f"key{seed}", subspaces[seed])


@pytest.mark.e2e
def test_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=hammer, args=(tmp_path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert all(path.suffix == ".safetensors" for path in tmp_path.iterdir())
