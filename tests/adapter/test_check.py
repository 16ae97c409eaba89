import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loramend.adapter.check import check_folder
from loramend.adapter.limits import Limits
from loramend.adapter.read import read_adapter
from loramend.contracts.errors import AdapterError
from tests.adapter import build
from tests.adapter.build import A_KEY, B_KEY, STEM


def refusal(folder: Path, limits: Limits | None = None) -> AdapterError:
    """What both the header check and the reader say."""
    with pytest.raises(AdapterError) as caught:
        check_folder(folder, limits)
    with pytest.raises(AdapterError) as again:
        read_adapter(folder, limits)
    assert (caught.value.code, caught.value.where) == (again.value.code, again.value.where)
    return caught.value


def test_what_is_known_of_an_adapter_without_its_tensors(tmp_path: Path) -> None:
    folder = build.write(tmp_path, build.config(), build.tensors(**{"base_model.model.x": torch.ones(1)}))
    header = check_folder(folder)
    assert header.format == "peft"
    assert header.base_model == "someone/base"
    assert header.files == ["adapter_config.json", "adapter_model.safetensors"]
    assert header.modules == 1
    assert header.passed_through == ("base_model.model.x",)


def test_no_torch_is_imported() -> None:
    code = (
        "import sys; import loramend.adapter.check, loramend.adapter.archive, loramend.adapter.capability; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_read_gives_the_name_digests_and_base(tmp_path: Path) -> None:
    import hashlib

    folder = build.write(tmp_path / "mine", build.config(), build.tensors())
    adapter = read_adapter(folder)
    assert (adapter.name, adapter.base_model) == ("mine", "someone/base")
    for path, sha256, size in adapter.files:
        content = (folder / path).read_bytes()
        assert (sha256, size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert read_adapter(folder, name="other").name == "other"
    (update,) = adapter.updates.values()
    assert update.name == "model.layers.0.self_attn.q_proj"
    assert update.weight == "model.layers.0.self_attn.q_proj.weight"
    assert (update.kind, update.scale, update.shape, update.rank) == ("linear", 2.0, (6, 5), 2)


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Tensor], str, str]] = {
    "missing_B": ({}, {A_KEY: torch.ones(2, 5)}, "tensor_unpaired", A_KEY),
    "missing_A": ({}, {B_KEY: torch.ones(6, 2)}, "tensor_unpaired", B_KEY),
    "embedding_B_beside_A": (
        {},
        {A_KEY: torch.ones(2, 5), f"{STEM}.lora_embedding_B": torch.ones(6, 2)},
        "tensor_unpaired",
        "",
    ),
    "rank_of_A": ({"r": 3}, build.tensors(), "tensor_shape_mismatch", A_KEY),
    "rank_of_B": ({}, build.tensors(**{B_KEY: torch.ones(6, 3)}), "tensor_shape_mismatch", B_KEY),
    "rank_pattern": ({"rank_pattern": {"q_proj": 4}}, build.tensors(), "tensor_shape_mismatch", A_KEY),
    "one_dimension": ({}, build.tensors(**{A_KEY: torch.ones(2)}), "tensor_shape_mismatch", A_KEY),
    "empty": ({}, build.tensors(**{A_KEY: torch.ones(2, 0)}), "tensor_shape_mismatch", A_KEY),
    "conv_B": (
        {},
        build.tensors(**{A_KEY: torch.ones(2, 5, 3), B_KEY: torch.ones(6, 2, 3)}),
        "tensor_shape_mismatch",
        B_KEY,
    ),
    "conv_groups": (
        {},
        build.tensors(**{A_KEY: torch.ones(2, 5, 3), B_KEY: torch.ones(5, 1, 1)}),
        "tensor_shape_mismatch",
        B_KEY,
    ),
    "experts": (
        {"target_modules": [], "target_parameters": ["self_attn.q_proj.w"]},
        build.tensors(**{A_KEY: torch.ones(5, 5), B_KEY: torch.ones(6, 5)}),
        "tensor_shape_mismatch",
        A_KEY,
    ),
    "bias": (
        {"lora_bias": True},
        build.tensors(**{f"{STEM}.lora_B.bias": torch.ones(5)}),
        "tensor_shape_mismatch",
        f"{STEM}.lora_B.bias",
    ),
    "float8": (
        {},
        build.tensors(**{A_KEY: torch.ones(2, 5).to(torch.float8_e4m3fn)}),
        "tensor_dtype_unsupported",
        A_KEY,
    ),
    "integers": ({}, build.tensors(**{A_KEY: torch.ones(2, 5).int()}), "tensor_dtype_unsupported", A_KEY),
    "two_adapters": (
        {},
        build.tensors(**{f"{STEM}.lora_A.other.weight": torch.ones(2, 5)}),
        "format_unsupported",
        "",
    ),
    "two_layers_of_one_module": (
        {},
        build.tensors(
            **{
                f"{STEM.removeprefix('base_model.model.')}.lora_{side}.weight": tensor
                for side, tensor in (("A", torch.ones(2, 5)), ("B", torch.ones(6, 2)))
            }
        ),
        "format_unsupported",
        "",
    ),
    "no_dimension": ({}, build.tensors(**{A_KEY: torch.tensor(1.0)}), "tensor_shape_mismatch", A_KEY),
    "nothing": ({}, {"base_model.model.score.weight": torch.ones(2)}, "adapter_not_found", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_tensors_that_contradict_the_config(name: str, tmp_path: Path) -> None:
    config, tensors, code, key = BROKEN[name]
    error = refusal(build.write(tmp_path, build.config(**config), tensors))
    assert error.code == code
    assert error.where is not None
    assert error.where.startswith(f"adapter_model.safetensors#{key}" if key else "adapter_model.safetensors")


def test_a_bias_that_peft_would_ignore_is_refused(tmp_path: Path) -> None:
    tensors = build.tensors(**{f"{STEM}.lora_B.bias": torch.ones(6)})
    error = refusal(build.write(tmp_path, build.config(), tensors))
    assert error.code == "config_invalid"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", [A_KEY, B_KEY, "base_model.model.score.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_infinity_are_found(value: float, key: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = build.tensors(**{"base_model.model.score.weight": torch.ones(3, 3)})
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    tensors[key][1, 1] = value
    folder = build.write(tmp_path, build.config(), tensors)
    check_folder(folder)
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder)
    assert caught.value.code == "tensor_not_finite"
    assert caught.value.where == f"adapter_model.safetensors#{key}"


@pytest.mark.parametrize("key", [A_KEY, B_KEY])
def test_float64_factors_beyond_float32_are_refused(key: str, tmp_path: Path) -> None:
    tensors = {name: tensor.double() for name, tensor in build.tensors().items()}
    tensors[key][1, 1] = -1e160
    with pytest.raises(AdapterError) as caught:
        read_adapter(build.write(tmp_path, build.config(), tensors))
    assert caught.value.code == "tensor_not_finite"
    assert caught.value.where == f"adapter_model.safetensors#{key}"


def test_rank_and_number_of_updates_have_a_cap(tmp_path: Path) -> None:
    folder = build.write(tmp_path / "one", build.config(), build.tensors())
    assert refusal(folder, Limits(max_rank=1)).code == "limit_exceeded"
    config = build.config(r=1, target_modules=[], target_parameters=["self_attn.q_proj.w"])
    folder = build.write(tmp_path / "many", config, build.tensors())
    assert check_folder(folder).modules == 2
    assert refusal(folder, Limits(max_updates=1)).code == "limit_exceeded"


@pytest.mark.parametrize(
    ("config", "code", "pointer"),
    [
        ({"peft_type": "LOHA"}, "peft_type_unsupported", "/peft_type"),
        ({"use_dora": True}, "config_unsupported", "/use_dora"),
        ({"rank_pattern": {"(": 2}}, "config_invalid", "/rank_pattern"),
        ({"alpha_pattern": {"x" * 600: 2}}, "limit_exceeded", "/alpha_pattern"),
        ({"r": "two"}, "config_invalid", "/r"),
    ],
)
def test_configs_that_are_refused(config: dict[str, Any], code: str, pointer: str, tmp_path: Path) -> None:
    error = refusal(build.write(tmp_path, build.config(**config), build.tensors()))
    assert (error.code, error.where) == (code, f"adapter_config.json#{pointer}")


def test_a_truncated_file(tmp_path: Path) -> None:
    folder = build.write(tmp_path, build.config(), build.tensors())
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert refusal(folder).code == "safetensors_invalid"


def test_pickles_alone_are_refused_and_beside_safetensors_ignored(tmp_path: Path) -> None:
    folder = build.write(tmp_path, build.config(), build.tensors())
    torch.save(build.tensors(), folder / "adapter_model.bin")
    (folder / "optimizer.pt").write_bytes(b"\x80\x04")
    assert check_folder(folder).modules == 1
    (folder / "adapter_model.safetensors").unlink()
    error = refusal(folder)
    assert error.code == "pickle_refused"
    assert "save_pretrained" in error.detail
    with pytest.raises(AdapterError) as caught:
        check_folder(folder / "adapter_model.bin")
    assert caught.value.code == "pickle_refused"


def test_the_config_must_be_there(tmp_path: Path) -> None:
    error = refusal(build.write(tmp_path, None, build.tensors()))
    assert (error.code, error.where) == ("config_invalid", "adapter_config.json")


class TestPlaces:
    def test_a_subfolder(self, tmp_path: Path) -> None:
        build.write(tmp_path / "inner", build.config(), build.tensors())
        (tmp_path / "__MACOSX").mkdir()
        (tmp_path / ".hidden").mkdir()
        assert check_folder(tmp_path).files == [
            "inner/adapter_config.json",
            "inner/adapter_model.safetensors",
        ]
        assert read_adapter(tmp_path).updates

    def test_the_root_comes_before_checkpoints(self, tmp_path: Path) -> None:
        build.write(tmp_path, build.config(), build.tensors())
        build.write(tmp_path / "checkpoint-5", build.config(), build.tensors())
        assert check_folder(tmp_path).files[0] == "adapter_config.json"

    def test_several_subfolders(self, tmp_path: Path) -> None:
        build.write(tmp_path / "one", build.config(), build.tensors())
        build.write(tmp_path / "two", build.config(), build.tensors())
        error = refusal(tmp_path)
        assert error.code == "adapter_not_found"
        assert "one" in error.detail

    def test_a_file_with_its_config_beside_it(self, tmp_path: Path) -> None:
        folder = build.write(tmp_path / "mine", build.config(), build.tensors())
        (folder / "adapter_model.safetensors").rename(folder / "some.safetensors")
        save_file({"x": torch.ones(1)}, folder / "other.safetensors")
        header = check_folder(folder / "some.safetensors")
        assert header.files == ["adapter_config.json", "some.safetensors"]
        assert refusal(folder).code == "adapter_not_found"

    def test_links_in_a_local_folder_are_followed(self, tmp_path: Path) -> None:
        folder = build.write(tmp_path / "blobs", build.config(), build.tensors())
        snapshot = tmp_path / "snapshot"
        snapshot.mkdir()
        for path in folder.iterdir():
            (snapshot / path.name).symlink_to(path)
        assert read_adapter(snapshot).updates

    @pytest.mark.parametrize("content", [{}, {"README.md": "hello"}, {"adapter_config.json": "{}"}])
    def test_nothing_there(self, content: dict[str, str], tmp_path: Path) -> None:
        for name, text in content.items():
            (tmp_path / name).write_text(text)
        assert refusal(tmp_path).code == "adapter_not_found"
        assert refusal(tmp_path / "nowhere").code == "adapter_not_found"


def test_the_file_may_go_once_it_is_read(tmp_path: Path) -> None:
    folder = build.write(tmp_path / "in", build.config(), build.tensors())
    expected = load_file(folder / "adapter_model.safetensors")[A_KEY].clone()
    adapter = read_adapter(folder)
    shutil.rmtree(folder)
    (update,) = adapter.updates.values()
    assert torch.equal(update.A, expected)


def test_bad_names_reach_messages_without_control_characters(tmp_path: Path) -> None:
    config = build.config(peft_type="\x1b[31mLORA")
    folder = build.write(tmp_path, None, build.tensors())
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert "\x1b" not in str(refusal(folder))
