"""With what is mounted folded into the weights a host answers as without, and is itself again after."""

from pathlib import Path

import pytest
import torch

from loramend.adapter.read import read_adapter
from loramend.data.examples import Example
from loramend.training.host import Host, open_host
from loramend.training.mount import adapter_mount
from tests.text_models import random_adapter, toy_examples

TEXTS = [Example(text) for text, _ in toy_examples(6, seed=3)]


def merged_layers(host: Host) -> int:
    return sum(layer.merged is not None for layer in host.layers.values())


@pytest.mark.parametrize("amp", [False, True])
def test_merged_it_answers_alike(
    classifier: Path, tmp_path: Path, amp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    first, second = (
        read_adapter(random_adapter(classifier, tmp_path / str(seed), std=0.2, seed=seed)) for seed in (1, 2)
    )
    host = open_host(classifier, first, amp=amp)
    batch = host.collate(host.encode(TEXTS, 64))
    near = 0.05 if amp else 1e-5
    with torch.no_grad(), host.mounted(adapter_mount(first)):
        one = host.forward(batch, fast=True).logits
        with host.merged():
            assert merged_layers(host) == len(host.layers)
            torch.testing.assert_close(host.forward(batch, fast=True).logits, one, atol=near, rtol=0)
            with host.mounted(adapter_mount(second)):
                assert merged_layers(host) == 0
                two = host.forward(batch, fast=True).logits
        torch.testing.assert_close(host.forward(batch, fast=True).logits, one, atol=0, rtol=0)
    assert merged_layers(host) == 0
    assert not torch.allclose(one, two, atol=0.05)


def test_half_precision_and_large_models_are_not_merged(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = read_adapter(random_adapter(classifier, tmp_path / "adapter"))
    host = open_host(classifier, adapter, dtype="bfloat16")
    with host.mounted(adapter_mount(adapter)), host.merged():
        assert merged_layers(host) == 0
    monkeypatch.setattr("loramend.training.host._MERGED_MOST", 100)
    host = open_host(classifier, adapter)
    with host.mounted(adapter_mount(adapter)), host.merged():
        assert merged_layers(host) == 0
