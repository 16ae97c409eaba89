"""Checkpoints as transformers writes them, against the weights of the models in memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from loramend.adapter.model import Update
from loramend.reference.open import open_references
from tests.reference.checkpoints import update_of

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 48,
}
MOE = TINY | {"num_key_value_heads": 1}


def expect(model: Path, weights: Iterable[tuple[Update, Tensor]]) -> None:
    """Every update's base weight is the given one."""
    pairs = list(weights)
    assert pairs
    with open_references(model, None) as references:
        references.check([update for update, _ in pairs])
        for update, weight in pairs:
            assert torch.equal(references.base(update), weight.detach()), update.weight


def linears(model: nn.Module) -> Iterable[tuple[Update, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield update_of(f"{name}.weight", (module.out_features, module.in_features)), module.weight


def test_a_classifiers_adapter_on_the_headless_base(tmp_path: Path) -> None:
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**TINY))
    model.bert.save_pretrained(tmp_path)
    expect(tmp_path, [(u, w) for u, w in linears(model) if not u.weight.startswith("classifier")])


def test_shards_by_transformers(tmp_path: Path) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**MOE))
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    expect(tmp_path, linears(model))


def test_conv1d_and_embedding_of_gpt2(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=48, n_positions=32)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path)
    attention = model.get_parameter("transformer.h.1.attn.c_attn.weight")  # (in, out)
    embedding = model.get_parameter("transformer.wte.weight")
    expect(
        tmp_path,
        [
            (update_of("transformer.h.1.attn.c_attn.weight", (48, 16), transposed=True), attention.mT),
            (
                update_of("transformer.wte.weight", (16, 48), kind="embedding", transposed=True),
                embedding.mT,
            ),
        ],
    )


@pytest.mark.parametrize("family", ["Mixtral", "Qwen2Moe"])
def test_experts_as_transformers_saves_them(tmp_path: Path, family: str) -> None:
    sizes = (
        {"num_local_experts": 3} if family == "Mixtral" else {"num_experts": 3, "moe_intermediate_size": 24}
    )
    config = getattr(transformers, f"{family}Config")(**MOE, **sizes)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.save_pretrained(tmp_path)
    expect(
        tmp_path,
        [
            (update_of(name, tuple(weight.shape[1:]), kind="parameter", expert=expert), weight[expert])
            for name, weight in model.named_parameters()
            if weight.dim() == 3
            for expert in range(3)
        ],
    )


def test_both_towers_of_a_vision_language_model(tmp_path: Path) -> None:
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=transformers.LlamaConfig(**TINY))
    model = transformers.LlavaForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    expect(tmp_path, linears(model))
    language = model.model.language_model
    expect(tmp_path, [(update_of(f"model.{u.weight}", u.shape), w) for u, w in linears(language)])
