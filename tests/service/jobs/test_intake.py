"""From an upload to checked blobs, without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.archive import pack
from loramend.adapter.limits import Limits
from loramend.contracts.errors import LoramendError
from service.jobs.intake import take_folder, take_upload
from service.jobs.records import BlobRef
from service.jobs.storage import Storage
from service.jobs.store import JobStore

FILES = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "blobs").as_uri())


def take(
    path: Path,
    storage: Storage,
    store: JobStore,
    *,
    filename: str = "adapter",
    config: dict[str, Any] | None = None,
    limits: Limits | None = None,
) -> dict[str, BlobRef]:
    return take_upload(
        path, filename, config, job_id="job", storage=storage, store=store, limits=limits or Limits()
    )


def refused(code: str, *args: Any, **fields: Any) -> LoramendError:
    with pytest.raises(LoramendError) as error:
        take(*args, **fields)
    assert error.value.code == code
    return error.value


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("intake-")]


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_an_archive(suffix: str, adapter: Path, tmp_path: Path, storage: Storage, store: JobStore) -> None:
    archive = tmp_path / f"a{suffix}"
    pack(adapter, archive)
    files = take(archive, storage, store)
    assert files.keys() == FILES
    for name, ref in files.items():
        assert b"".join(storage.open(ref)) == (adapter / name).read_bytes()
        assert store.blobs.holders(ref.sha256) == ["job"]
    assert left_in(tmp_path) == []


def test_a_bare_file_with_its_config(
    adapter: Path, tmp_path: Path, storage: Storage, store: JobStore
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    files = take(adapter / "adapter_model.safetensors", storage, store, config=config)
    assert files.keys() == FILES
    assert json.loads(b"".join(storage.open(files["adapter_config.json"]))) == config
    folder = take_folder(adapter, job_id="job", storage=storage, store=store, limits=Limits())
    assert files["adapter_model.safetensors"] == folder["adapter_model.safetensors"]


def test_what_is_refused_leaves_nothing(
    adapter: Path, tmp_path: Path, storage: Storage, store: JobStore
) -> None:
    weights = adapter / "adapter_model.safetensors"
    pack(adapter, tmp_path / "a.zip")
    config = json.loads((adapter / "adapter_config.json").read_text())
    truncated = tmp_path / "truncated"
    truncated.write_bytes(weights.read_bytes()[:-5])

    refused("config_invalid", weights, storage, store)
    refused("pickle_refused", weights, storage, store, filename="adapter_model.bin", config=config)
    refused("safetensors_invalid", truncated, storage, store, config=config)
    refused("peft_type_unsupported", weights, storage, store, config={**config, "peft_type": "LOHA"})
    both = refused("request_invalid", tmp_path / "a.zip", storage, store, config=config)
    assert both.where == "/source/config"
    large = {**config, "task_type": "x" * 100}
    refused("limit_exceeded", weights, storage, store, config=large, limits=Limits(max_config_bytes=100))
    refused("archive_too_large", tmp_path / "a.zip", storage, store, limits=Limits(max_archive_bytes=10))

    assert left_in(tmp_path) == []
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_no_torch() -> None:
    """The service's side of jobs, in a process of its own."""
    code = (
        "import sys, service.jobs.intake, service.jobs.store, service.jobs.queue, service.jobs.events, "
        "service.jobs.secrets, service.jobs.roots; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
