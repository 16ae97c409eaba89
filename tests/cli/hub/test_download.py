"""What is chosen from a repository, by names and sizes alone."""

import pytest

from loramend.cli.hub.download import Listing, choose_adapter_files, choose_shards
from loramend.contracts.errors import AdapterError


def listing(*names: str, readme: int = 10) -> Listing:
    sizes = dict.fromkeys(names, 10)
    return Listing("a/b", "0" * 40, sizes | ({"README.md": readme} if readme else {}))


def test_peft_files_win_over_everything_beside_them() -> None:
    files = listing(
        "adapter_model.safetensors", "adapter_config.json", "adapter_model.bin", "other.safetensors"
    )
    assert choose_adapter_files(files) == ["adapter_config.json", "adapter_model.safetensors", "README.md"]


def test_a_readme_is_left_where_it_is_missing_or_huge() -> None:
    assert choose_adapter_files(listing("x.safetensors", readme=0)) == ["x.safetensors"]
    assert choose_adapter_files(listing("x.safetensors", readme=2**30)) == ["x.safetensors"]


@pytest.mark.parametrize("pickle", ["adapter_model.bin", "lora.pt", "lora.ckpt", "lora.pkl", "lora.pth"])
def test_pickles_alone_are_refused(pickle: str) -> None:
    with pytest.raises(AdapterError) as caught:
        choose_adapter_files(listing("adapter_config.json", pickle))
    assert caught.value.code == "pickle_refused"


MAP = {
    "model.layers.1.q.weight": "one",
    "model.layers.11.q.weight": "eleven",
    "lm_head.weight": "head",
    "vision.model.layers.1.q.weight": "vision",
}


@pytest.mark.parametrize(
    ("needed", "shards"),
    [
        (["model.layers.1.q.weight"], ["one"]),
        (["layers.1.q.weight"], ["one", "vision"]),
        (["base.model.layers.11.q.weight"], ["eleven"]),
        (["1.q.weight"], ["one", "vision"]),
        (["lm_head.weight", "model.layers.11.q.weight"], ["eleven", "head"]),
        (["model.layers.2.q.weight"], ["eleven", "head", "one", "vision"]),
        ([], ["eleven", "head", "one", "vision"]),
        (None, ["eleven", "head", "one", "vision"]),
    ],
)
def test_shards_by_whole_parts_of_names(needed: list[str] | None, shards: list[str]) -> None:
    assert choose_shards(MAP, needed) == shards
