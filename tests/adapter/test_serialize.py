from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from loramend.adapter.header import read_header
from loramend.adapter.limits import Limits
from loramend.adapter.serialize import write_safetensors


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "b": torch.randn(3, 5),
        "a": torch.randn(3, 5, dtype=torch.float64).T,
        "half": torch.randn(3).half(),
        "brain": torch.randn(()).bfloat16(),
        "eight": torch.randn(3).to(torch.float8_e5m2),
        "long": torch.arange(3),
        "flag": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 3),
    }


def test_the_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(tensors(), {"format": "pt", "k": "v"}, path)
    loaded = load_file(path)
    assert loaded.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name].double(), tensor.double())
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt", "k": "v"}
    header = read_header(path, Limits())
    assert all(info.begin % 2 == 0 for info in header.tensors.values() if info.dtype == "BF16")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_order_given_does_not_matter(tmp_path: Path) -> None:
    metadata = {str(index): "x" for index in range(9)}
    write_safetensors(tensors(), metadata, tmp_path / "one")
    write_safetensors(dict(reversed(tensors().items())), dict(reversed(metadata.items())), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
