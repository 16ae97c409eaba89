import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loramend.contracts.errors import ReferenceModelError
from loramend.reference.checkpoint import Checkpoint
from loramend.reference.digests import DigestMemo
from tests.reference.checkpoints import normal, save_sharded, save_single, settle

NAME = "model.layers.0.q.weight"


def opened(model: Path, memo: Path | None = None) -> Checkpoint:
    return Checkpoint(model, role="base", memo=DigestMemo(memo or model.parent / "memo"))


def failing(model: Path, tensor: str | None = None) -> ReferenceModelError:
    """The error that opening the model, or reading the tensor, raises."""

    def use() -> None:
        checkpoint = opened(model)
        if tensor is not None:
            checkpoint.read(checkpoint.find(tensor))

    with pytest.raises(ReferenceModelError) as caught:
        use()
    return caught.value


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_reads_each_tensor_in_its_own_dtype_with_the_digest_of_its_bytes(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = {NAME: normal(5, 3, dtype=dtype), "b": normal(4, seed=1, dtype=dtype), "s": normal(dtype=dtype)}
    checkpoint = opened(save_single(tmp_path / "m", tensors))
    assert sorted(checkpoint.names) == sorted(tensors)
    for name, expected in tensors.items():
        tensor, sha256 = checkpoint.read(checkpoint.find(name))
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected)
        data = expected.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        assert sha256 == hashlib.sha256(data).hexdigest()


def test_shards_of_an_index_are_read_lazily(tmp_path: Path) -> None:
    shards = [{"a": normal(3, 3)}, {"b": normal(4, 3), "c": normal(2, 2)}]
    model = save_sharded(tmp_path / "m", shards)
    (model / "model-00001-of-00002.safetensors").unlink()
    (model / "other.safetensors").write_bytes(b"not in the index")
    checkpoint = opened(model)
    assert sorted(checkpoint.names) == ["a", "b", "c"]
    assert torch.equal(checkpoint.read(checkpoint.find("b"))[0], shards[1]["b"])
    with pytest.raises(ReferenceModelError):
        checkpoint.find("a")


def test_a_slice_of_a_fused_tensor_reads_only_itself(tmp_path: Path) -> None:
    fused = normal(4, 6, 5, dtype=torch.bfloat16)
    checkpoint = opened(save_single(tmp_path / "m", {"first": normal(3), "experts": fused}))
    stored = checkpoint.find("experts").slice(2)
    assert stored.name == "experts[2]"
    assert stored.end - stored.begin == 6 * 5 * 2
    assert torch.equal(checkpoint.read(stored)[0], fused[2])


def test_one_file_or_any_safetensors_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    save_file({"a": normal(2, 2)}, folder / "one.safetensors")
    save_file({"b": normal(2, 2)}, folder / "two.safetensors")
    save_file({"a": normal(2, 2)}, folder / "adapter_model.safetensors")
    assert sorted(opened(folder).names) == ["a", "b"]
    assert opened(folder / "two.safetensors").names == ["b"]
    save_file({"b": normal(2, 2)}, folder / "copy.safetensors")
    error = failing(folder)
    assert error.code == "reference_invalid"
    assert error.where == "base/two.safetensors#b"
    assert "copy.safetensors" in error.detail


def test_a_pipeline_names_tensors_by_their_folder(tmp_path: Path) -> None:
    save_single(tmp_path / "m" / "unet", {"down.weight": normal(2, 2)})
    save_single(tmp_path / "m" / "text_encoder", {"down.weight": normal(2, 2)})
    (tmp_path / "m" / "model_index.json").write_text("{}")
    assert sorted(opened(tmp_path / "m").names) == ["text_encoder.down.weight", "unet.down.weight"]


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_truncated_shard_is_named(tmp_path: Path, keep: int) -> None:
    model = save_sharded(tmp_path / "m", [{NAME: normal(8, 8)}, {"b": normal(2, 2)}])
    shard = model / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    error = failing(model, NAME)
    assert error.code == "reference_invalid"
    assert error.where
    assert error.where.startswith("base/model-00001-of-00002.safetensors")


def test_a_shard_cut_while_in_use_names_file_and_tensor(tmp_path: Path) -> None:
    model = save_single(tmp_path / "m", {NAME: normal(64, 64)})
    checkpoint = opened(model)
    stored = checkpoint.find(NAME)
    os.truncate(model / "model.safetensors", 2000)
    with pytest.raises(ReferenceModelError, match="ended in this tensor") as caught:
        checkpoint.read(stored)
    assert caught.value.code == "reference_invalid"
    assert caught.value.where == f"base/model.safetensors#{NAME}"


def test_a_shard_rewritten_while_in_use_is_refused(tmp_path: Path) -> None:
    model = save_single(tmp_path / "m", {NAME: normal(8, 8)})
    checkpoint = opened(model)
    stored = checkpoint.find(NAME)
    settle()
    save_single(model, {NAME: normal(8, 8, seed=1)})
    with pytest.raises(ReferenceModelError, match="changed while"):
        checkpoint.read(stored)
    (model / "model.safetensors").unlink()
    with pytest.raises(ReferenceModelError, match="cannot be read"):
        checkpoint.read(stored)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04" + b"data.pkl" * 20, "pickle"),
        (b"\xff" * 64, "safetensors"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "header"),
        ((2).to_bytes(8, "little") + b"[]", "header"),
    ],
)
def test_garbage_under_a_shards_name(tmp_path: Path, content: bytes, says: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    error = failing(folder)
    assert error.code == "reference_invalid"
    assert error.where == "base/model.safetensors"
    assert says in error.detail


@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "a/../../x.safetensors",
        "a\0.safetensors",
        "model.bin",
        3,
        None,
    ],
)
def test_an_index_may_not_point_outside(tmp_path: Path, shard: object) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    error = failing(folder)
    assert error.code == "reference_invalid"
    assert error.where == "base/model.safetensors.index.json"


def test_an_index_that_promises_too_much(tmp_path: Path) -> None:
    model = save_sharded(tmp_path / "m", [{"a": normal(2, 2)}])
    index = model / "model.safetensors.index.json"
    shard = "model-00001-of-00001.safetensors"
    index.write_text(json.dumps({"weight_map": {"a": shard, "b": shard}}))
    error = failing(model, "b")
    assert (error.code, error.where) == ("reference_invalid", f"base/{shard}#b")
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    error = failing(model, "a")
    assert (error.code, error.where) == ("reference_invalid", "base/model-00002-of-00002.safetensors")
    assert "No such file" in error.detail
    for broken in ("{", "[]", "{}", "[" * 100_000):
        index.write_text(broken)
        assert failing(model).code == "reference_invalid"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("pytorch_model.bin", "save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", "save_pretrained"),
        ("model.q4.gguf", "unquantised"),
        ("adapter_config.json", "adapter"),
        ("README.md", "no .safetensors"),
    ],
)
def test_folders_without_safetensors_say_what_to_do(tmp_path: Path, file: str, says: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / file).write_bytes(b"{}")
    error = failing(folder)
    assert error.code == "reference_invalid"
    assert says in error.detail


def test_nothing_there(tmp_path: Path) -> None:
    error = failing(tmp_path / "absent")
    assert (error.code, error.where) == ("reference_not_found", "base/absent")


def test_quantised_tensors_are_not_read(tmp_path: Path) -> None:
    model = save_single(tmp_path / "m", {"a": torch.zeros(4, 4, dtype=torch.int8)})
    error = failing(model, "a")
    assert error.code == "reference_invalid"
    assert "unquantised" in error.detail
    assert error.where == "base/model.safetensors#a"


def test_a_known_digest_needs_no_read_until_the_file_changes(tmp_path: Path) -> None:
    model = save_single(tmp_path / "m", {NAME: normal(8, 8), "b": normal(2, 2)})
    settle()
    first = opened(model)
    assert first.digest(first.find(NAME)) is None
    _, sha256 = first.read(first.find(NAME))
    again = opened(model)
    assert again.digest(again.find(NAME)) == sha256
    assert again.digest(again.find("b")) is None

    file = model / "model.safetensors"
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\1\2\3\4")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    changed = opened(model)
    assert changed.digest(changed.find(NAME)) is None


def test_a_file_written_a_moment_ago_is_not_remembered_for_later_runs(tmp_path: Path) -> None:
    model = save_single(tmp_path / "m", {NAME: normal(8, 8)})
    first = opened(model)
    file = model / "model.safetensors"
    os.utime(file)
    first = opened(model)
    first.read(first.find(NAME))
    assert first.digest(first.find(NAME)) is not None
    again = opened(model)
    assert again.digest(again.find(NAME)) is None


def test_torn_notes_are_passed_over(tmp_path: Path) -> None:
    model = save_single(tmp_path / "m", {NAME: normal(8, 8)})
    settle()
    first = opened(model)
    _, sha256 = first.read(first.find(NAME))
    (notes,) = (tmp_path / "memo").iterdir()
    line = notes.read_bytes()
    notes.write_bytes(b'{"begin": 1, "en\n[]\n\xff\n{"begin": 0, "end": 9, "sha256": "short"}\n' + line)
    again = opened(model)
    assert again.digest(again.find(NAME)) == sha256
    notes.write_bytes(line[:20])
    torn = opened(model)
    assert torn.digest(torn.find(NAME)) is None
    assert torn.read(torn.find(NAME))[1] == sha256


def test_a_memo_that_cannot_be_written_costs_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_single(tmp_path / "m", {NAME: normal(8, 8)})
    settle()
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    checkpoint = opened(model, memo=blocked / "memo")
    checkpoint.read(checkpoint.find(NAME))
    assert "not remembered" in caplog.text
