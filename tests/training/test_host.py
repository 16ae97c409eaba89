"""A host with an adapter mounted is PEFT's model."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import BertForSequenceClassification

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.errors import AdapterError, LoramendError, ReferenceModelError, RequestError
from loramend.data.examples import Example
from loramend.training.encode import Encoded
from loramend.training.host import Host, fast_bfloat16, open_host
from loramend.training.mount import Mount, adapter_mount, factors_of, fresh, trainable
from tests.text_models import bert_folder, gpt2_folder, llama_folder, load_base, random_adapter, toy_examples

TEXTS = [Example(text) for text, _ in toy_examples(6, seed=3)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    tmp = tmp_path_factory.mktemp("bases")
    return {"bert": bert_folder(tmp), "llama": llama_folder(tmp), "gpt2": gpt2_folder(tmp)}


def batch_of(host: Host) -> Encoded:
    return host.collate(host.encode(TEXTS, 64))


@torch.no_grad()
def peft_logits(folder: Path, adapter: Path, batch: Encoded, **arguments: Any) -> Tensor:
    task = read_adapter(adapter).config["task_type"]
    base = load_base(folder, task_type=task, **arguments)
    base.config.pad_token_id = int(batch.input_ids[batch.attention_mask == 0][0])
    model: Any = PeftModel.from_pretrained(base, str(adapter))
    out: Tensor = model.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return out


@torch.no_grad()
def host_logits(host: Host, adapter: Adapter, batch: Encoded) -> Tensor:
    with host.mounted(adapter_mount(adapter)):
        return host.forward(batch).logits


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("bert", {"use_rslora": True}),
    ("bert", {"alpha_pattern": {"query": 32}, "rank_pattern": {"value": 2, "layer.1.output.dense": 7}}),
    ("bert", {"bias": "all"}),
    ("bert", {"bias": "lora_only"}),
    ("bert", {"modules_to_save": ["classifier", "pooler"]}),
    ("llama", {}),
    ("llama", {"alpha_pattern": {"down_proj": 1}, "use_rslora": True}),
    ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}),
    ("llama", {"task_type": "SEQ_CLS"}),
    ("gpt2", {}),
    ("gpt2", {"rank_pattern": {"c_fc": 1}, "modules_to_save": ["ln_f"]}),
]


@pytest.mark.parametrize(("model", "changes"), VARIANTS, ids=[f"{m}-{list(c)}" for m, c in VARIANTS])
def test_equals_peft(
    folders: Mapping[str, Path], tmp_path: Path, model: str, changes: dict[str, Any]
) -> None:
    saved = random_adapter(folders[model], tmp_path / "adapter", std=0.3, **changes)
    adapter = read_adapter(saved)
    host = open_host(folders[model], adapter)
    batch = batch_of(host)
    found = host_logits(host, adapter, batch)
    real = batch.attention_mask.bool() if found.dim() == 3 else slice(None)
    torch.testing.assert_close(
        found[real], peft_logits(folders[model], saved, batch)[real], atol=1e-5, rtol=1e-5
    )
    with torch.no_grad():
        bare = host.forward(batch).logits
    assert float((found - bare)[real].abs().max()) > 0.05


@pytest.mark.filterwarnings("ignore:.*have invalid shape")  # peft 0.21 takes a bias for a broken matrix
def test_lora_bias_keeps_what_it_adds(folders: Mapping[str, Path], tmp_path: Path) -> None:
    saved = random_adapter(folders["bert"], tmp_path / "adapter", lora_bias=True)
    adapter = read_adapter(saved)
    host = open_host(folders["bert"], adapter)
    batch = batch_of(host)
    expected = peft_logits(folders["bert"], saved, batch)
    torch.testing.assert_close(host_logits(host, adapter, batch), expected, atol=1e-5, rtol=1e-5)
    rescaled = {
        name: update.with_factors(update.B * update.scale, update.A, 1.0)
        for name, update in adapter.updates.items()
    }
    again = host_logits(host, adapter.with_updates(rescaled), batch)
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_base_is_near_peft(folders: Mapping[str, Path], tmp_path: Path) -> None:
    saved = random_adapter(folders["bert"], tmp_path / "adapter", std=0.2)
    adapter = read_adapter(saved)
    host = open_host(folders["bert"], adapter, dtype="bfloat16")
    batch = batch_of(host)
    found = host_logits(host, adapter, batch)
    assert found.dtype == torch.float32
    exact = peft_logits(folders["bert"], saved, batch)
    assert float((found - exact).abs().max()) < 0.05


def test_mixed_precision_is_for_those_who_ask_on_a_device_that_gains(
    folders: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = random_adapter(folders["bert"], tmp_path / "adapter", std=0.2)
    adapter = read_adapter(saved)
    told: dict[str, object] = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    host = open_host(folders["bert"], adapter, amp=True)
    batch = batch_of(host)
    exact = peft_logits(folders["bert"], saved, batch)
    torch.testing.assert_close(host_logits(host, adapter, batch), exact, atol=1e-5, rtol=1e-5)
    with host.mounted(adapter_mount(adapter)), torch.no_grad():
        fast = host.forward(batch, fast=True).logits
    assert fast.dtype == torch.float32
    assert 1e-5 < float((fast - exact).abs().max()) < 0.05
    assert not open_host(folders["bert"], adapter, amp=True, dtype="bfloat16").amp
    told["avx512_bf16"] = False
    assert not open_host(folders["bert"], adapter, amp=True).amp


@pytest.mark.parametrize(
    ("told", "gains"),
    [
        ({}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "avx512_fp16": True}, False),
        ({"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": True}, True),
    ],
)
def test_a_cpu_whose_amx_is_hidden_does_not_gain_by_bfloat16(
    told: dict[str, object], gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    assert fast_bfloat16(torch.device("cpu")) is gains


def test_float32_head_trains_in_a_bfloat16_model(folders: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = read_adapter(random_adapter(folders["bert"], tmp_path / "adapter"))
    host = open_host(folders["bert"], adapter, dtype="bfloat16")
    mount = adapter_mount(adapter)
    heads = {name: torch.nn.Parameter(tensor.float()) for name, tensor in mount.tensors.items()}
    host.mount(replace(mount, tensors=heads))
    torch.autograd.backward(host.forward(batch_of(host)).logits.square().sum())
    assert all(head.grad is not None and bool(head.grad.any()) for head in heads.values())


def test_mounts_are_exchanged(folders: Mapping[str, Path], tmp_path: Path) -> None:
    first, second = (
        read_adapter(random_adapter(folders["bert"], tmp_path / str(seed), seed=seed)) for seed in (1, 2)
    )
    host = open_host(folders["bert"], first)
    batch = batch_of(host)
    with torch.no_grad():
        bare = host.forward(batch).logits
        host.mount(adapter_mount(first))
        one = host.forward(batch).logits
        with host.mounted(adapter_mount(second)):
            two = host.forward(batch).logits
        torch.testing.assert_close(host.forward(batch).logits, one, atol=0, rtol=0)
        host.mount(None)
        torch.testing.assert_close(host.forward(batch).logits, bare, atol=0, rtol=0)
    assert not torch.allclose(one, two, atol=1e-3)
    assert not torch.allclose(one, bare, atol=1e-3)


def test_mount_of_foreign_update_is_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = read_adapter(random_adapter(folders["bert"], tmp_path / "adapter"))
    host = open_host(folders["bert"], adapter)
    update = next(iter(adapter.updates.values()))
    with pytest.raises(KeyError, match="elsewhere"):
        host.mount(Mount(added={"elsewhere": factors_of(update)}))


def test_frozen_and_trained_parts_add_up(folders: Mapping[str, Path], tmp_path: Path) -> None:
    given = read_adapter(random_adapter(folders["llama"], tmp_path / "adapter"))
    host = open_host(folders["llama"], given)
    batch = batch_of(host)
    whole = host_logits(host, given, batch)
    split = Mount(
        frozen={name: factors_of(update, 0.25) for name, update in given.updates.items()},
        added={name: factors_of(update, 0.5) for name, update in given.updates.items()},
        trained={
            name: trainable(replace(update, scale=update.scale / 4)) for name, update in given.updates.items()
        },
    )
    with torch.no_grad(), host.mounted(split):
        torch.testing.assert_close(host.forward(batch).logits, whole, atol=1e-4, rtol=1e-4)
    new = {name: fresh(update, 3, 2.0, seed=7) for name, update in given.updates.items()}
    with torch.no_grad(), host.mounted(replace(adapter_mount(given), trained=new)):
        torch.testing.assert_close(host.forward(batch).logits, whole, atol=0, rtol=0)  # B is zero
    name, update = next(iter(given.updates.items()))
    assert torch.equal(new[name].A, fresh(update, 3, 2.0, seed=7).A)
    assert not torch.equal(new[name].A, fresh(update, 3, 2.0, seed=8).A)
    assert float(new[name].A.detach().abs().max()) <= update.shape[1] ** -0.5


def test_gradients_equal_pefts(folders: Mapping[str, Path], tmp_path: Path) -> None:
    saved = random_adapter(folders["gpt2"], tmp_path / "adapter")
    adapter = read_adapter(saved)
    host = open_host(folders["gpt2"], adapter)
    batch = batch_of(host)
    mount = Mount(trained={name: trainable(update) for name, update in adapter.updates.items()})
    host.mount(mount)
    torch.autograd.backward(host.forward(batch).logits.square().mean())
    model = PeftModel.from_pretrained(load_base(folders["gpt2"]), str(saved), is_trainable=True).eval()
    out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    out.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, module in mount.trained.items():
        for side, parameter in (("A", module.A), ("B", module.B)):
            expected = gradients[f"base_model.model.{name}.lora_{side}.default.weight"]
            assert parameter.grad is not None
            assert expected is not None
            torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-4)
    assert all(not parameter.requires_grad for parameter in host.module.parameters())


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_gradient_checkpointing_changes_no_gradient(
    folders: Mapping[str, Path], tmp_path: Path, model: str
) -> None:
    adapter = read_adapter(random_adapter(folders[model], tmp_path / "adapter"))
    found = []
    for checkpointing in (False, True):
        host = open_host(folders[model], adapter, gradient_checkpointing=checkpointing)
        mount = Mount(trained={name: trainable(update) for name, update in adapter.updates.items()})
        host.mount(mount)
        host.frozen_dropout(0.2)
        torch.manual_seed(5)
        with host.training():
            torch.autograd.backward(host.forward(batch_of(host)).logits.square().mean())
        found.append({name: module.A.grad for name, module in mount.trained.items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


def test_frozen_dropout_acts_in_training_alone(folders: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = read_adapter(random_adapter(folders["bert"], tmp_path / "adapter"))
    host = open_host(folders["bert"], adapter)
    host.mount(adapter_mount(adapter))
    batch = batch_of(host)
    with torch.no_grad():
        plain = host.forward(batch).logits
        with host.training(own_dropout=False):
            torch.testing.assert_close(host.forward(batch).logits, plain, atol=0, rtol=0)
        with host.training():
            assert not torch.allclose(host.forward(batch).logits, plain)  # BERT's own dropout
        host.frozen_dropout(0.3)
        torch.testing.assert_close(host.forward(batch).logits, plain, atol=0, rtol=0)
        with host.training(own_dropout=False):
            assert not torch.allclose(host.forward(batch).logits, plain)


def test_padding_does_not_reach_the_answer(folders: Mapping[str, Path], tmp_path: Path) -> None:
    for model in ("bert", "llama"):
        adapter = read_adapter(random_adapter(folders[model], tmp_path / model))
        host = open_host(folders[model], adapter)
        items = host.encode(TEXTS, 64)
        with torch.no_grad():
            together = host.forward(host.collate(items), hidden=True)
            assert together.hidden_states is not None
            for row, item in enumerate(items):
                alone = host.forward(host.collate([item]), hidden=True)
                assert alone.hidden_states is not None
                assert len(alone.hidden_states) == 3
                torch.testing.assert_close(
                    together.hidden_states[-1][row, : len(item.ids)],
                    alone.hidden_states[-1][0],
                    atol=1e-5,
                    rtol=1e-4,
                )


def test_head_of_the_adapter_tells_the_classes(folders: Mapping[str, Path], tmp_path: Path) -> None:
    base = shutil.copytree(folders["bert"], tmp_path / "bert")
    BertForSequenceClassification.from_pretrained(
        base, num_labels=3, ignore_mismatched_sizes=True
    ).save_pretrained(base)
    saved = random_adapter(base, tmp_path / "adapter")
    adapter = read_adapter(saved)
    host = open_host(folders["bert"], adapter)
    assert host.labels is not None
    assert host.labels.count == 3
    batch = batch_of(host)
    # The folder's own head has two classes; all else is the same.
    torch.testing.assert_close(
        host_logits(host, adapter, batch), peft_logits(base, saved, batch), atol=1e-5, rtol=1e-5
    )


def test_base_saved_without_its_prefix(folders: Mapping[str, Path], tmp_path: Path) -> None:
    saved = random_adapter(folders["bert"], tmp_path / "adapter")
    adapter = read_adapter(saved)
    bare = shutil.copytree(folders["bert"], tmp_path / "bert")
    BertForSequenceClassification.from_pretrained(bare).bert.save_pretrained(bare)
    host = open_host(bare, adapter)
    batch = batch_of(host)
    torch.testing.assert_close(
        host_logits(host, adapter, batch), peft_logits(folders["bert"], saved, batch), atol=1e-5, rtol=1e-5
    )


def test_names_with_another_wrapper_resolve(folders: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = read_adapter(random_adapter(folders["llama"], tmp_path / "adapter"))
    renamed = replace(
        adapter,
        updates={
            name: replace(update, weight=update.weight.removeprefix("model."))
            for name, update in adapter.updates.items()
        },
    )
    assert open_host(folders["llama"], renamed).layers.keys() == adapter.updates.keys()


def test_a_config_cannot_ask_for_code_from_the_hub(folders: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = read_adapter(random_adapter(folders["llama"], tmp_path / "adapter"))
    base = shutil.copytree(folders["llama"], tmp_path / "llama")
    config = json.loads((base / "config.json").read_text())
    asking = {"attn_implementation": "someone/kernels", "experts_implementation": "someone/kernels"}
    (base / "config.json").write_text(json.dumps({**config, **asking}))
    host = open_host(base, adapter)
    plain = open_host(folders["llama"], adapter)
    batch = batch_of(plain)
    torch.testing.assert_close(host_logits(host, adapter, batch), host_logits(plain, adapter, batch))


def refused(folder: Path, adapter: Adapter, kind: type[LoramendError], code: str, match: str) -> None:
    with pytest.raises(kind, match=match) as raised:
        open_host(folder, adapter)
    assert raised.value.code == code
    assert raised.value.where


def test_what_cannot_be_run_is_refused_by_name(folders: Mapping[str, Path], tmp_path: Path) -> None:
    bert = folders["bert"]
    adapter = read_adapter(random_adapter(bert, tmp_path / "adapter"))
    name, update = next(iter(adapter.updates.items()))
    seq2seq = replace(adapter, config={**adapter.config, "task_type": "SEQ_2_SEQ_LM"})
    refused(bert, seq2seq, RequestError, "method_unsupported", "SEQ_2_SEQ_LM.*SEQ_CLS and CAUSAL_LM")
    for kind in ("embedding", "conv", "parameter"):
        other = adapter.with_updates({name: replace(update, kind=kind)})
        refused(bert, other, AdapterError, "method_unsupported", kind)
    tokens = replace(
        adapter, passthrough={"base_model.model.x.token_adapter.trainable_tokens_delta": torch.zeros(1)}
    )
    refused(bert, tokens, AdapterError, "method_unsupported", "trainable tokens")
    unknown = replace(
        adapter, passthrough={**adapter.passthrough, "base_model.model.dec.weight": torch.ones(2)}
    )
    refused(bert, unknown, AdapterError, "config_unsupported", "dec.weight")
    shape = replace(
        adapter, passthrough={**adapter.passthrough, "base_model.model.bert.pooler.dense.bias": torch.ones(2)}
    )
    refused(bert, shape, AdapterError, "config_unsupported", "pooler.dense.bias.*\\[2\\]")
    nowhere = adapter.with_updates({name: replace(update, weight="bert.encoder.layer.9.output.dense.weight")})
    refused(bert, nowhere, ReferenceModelError, "reference_mismatch", "layer.9")
    refused(
        folders["llama"], replace(adapter, passthrough={}), ReferenceModelError, "reference_invalid", "score"
    )


def test_folders_that_are_no_whole_base_are_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    saved = random_adapter(folders["bert"], tmp_path / "adapter")
    adapter = read_adapter(saved)
    refused(saved, adapter, ReferenceModelError, "reference_invalid", "adapter's folder")
    base = shutil.copytree(folders["bert"], tmp_path / "base")
    (base / "tokenizer.json").unlink()
    refused(base, adapter, ReferenceModelError, "reference_invalid", "tokenizer")
    # Without any file of one, transformers makes up an empty one, to which every word is unknown.
    for file in base.glob("*token*"):
        file.unlink()
    refused(base, adapter, ReferenceModelError, "reference_invalid", "holds no tokenizer")
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(b"never read")
    refused(base, adapter, ReferenceModelError, "reference_invalid", "safetensors")
    (base / "config.json").unlink()
    refused(base, adapter, ReferenceModelError, "reference_invalid", "config.json")


def test_loading_leaves_the_callers_generator_alone(folders: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = read_adapter(random_adapter(folders["bert"], tmp_path / "adapter"))
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    open_host(folders["bert"], adapter)
    assert torch.equal(torch.rand(3), expected)
