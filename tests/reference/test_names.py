import pytest

from loramend.reference.names import Names

Q = "self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        # the name itself, whatever else ends alike
        (f"model.layers.0.{Q}", [f"model.layers.0.{Q}", f"x.model.layers.0.{Q}"], [f"model.layers.0.{Q}"]),
        # leading components dropped or added
        ("bert.encoder.layer.0.q.weight", ["encoder.layer.0.q.weight"], ["encoder.layer.0.q.weight"]),
        ("encoder.layer.0.q.weight", ["bert.encoder.layer.0.q.weight"], ["bert.encoder.layer.0.q.weight"]),
        ("model.embed_tokens.weight", ["embed_tokens.weight"], ["embed_tokens.weight"]),
        ("transformer.h.1.attn.c_attn.weight", ["h.1.attn.c_attn.weight"], ["h.1.attn.c_attn.weight"]),
        # an encoder is not a decoder
        (
            "transformer.encoder.block.0.q.weight",
            ["encoder.block.0.q.weight", "decoder.block.0.q.weight"],
            ["encoder.block.0.q.weight"],
        ),
        ("model.decoder.layers.0.fc1.weight", ["model.encoder.layers.0.fc1.weight"], []),
        # another layer, another module, another number of digits
        (f"model.layers.1.{Q}", [f"model.layers.0.{Q}", f"model.layers.11.{Q}"], []),
        (f"model.layers.0.{Q}", ["model.layers.0.self_attn.k_proj.weight"], []),
        ("classifier.dense.weight", ["pooler.dense.weight"], []),
        # wrappers swapped, with a vision tower beside the language model
        (
            f"model.language_model.layers.0.{Q}",
            [f"language_model.model.layers.0.{Q}", f"vision_tower.vision_model.encoder.layers.0.{Q}"],
            [f"language_model.model.layers.0.{Q}"],
        ),
        (
            "model.vision_tower.encoder.layers.0.fc1.weight",
            ["vision_tower.encoder.layers.0.fc1.weight", "language_model.model.layers.0.fc1.weight"],
            ["vision_tower.encoder.layers.0.fc1.weight"],
        ),
        ("model.vision_tower.layers.0.fc1.weight", ["language_model.model.layers.0.fc1.weight"], []),
        # two that fit: an ambiguity
        (
            "layers.0.x.weight",
            ["a.layers.0.x.weight", "b.layers.0.x.weight"],
            ["a.layers.0.x.weight", "b.layers.0.x.weight"],
        ),
        # no number at all, or first
        ("lm_head.weight", ["model.lm_head.weight", "model.norm.weight"], ["model.lm_head.weight"]),
        ("0.weight", ["0.weight", "1.weight"], ["0.weight"]),
        ("2.weight", ["0.weight", "1.weight"], []),
    ],
)
def test_names_that_can_mean_another(wanted: str, names: list[str], found: list[str]) -> None:
    assert Names(names).like(wanted) == found


UNET = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize("ending", ["", ".weight"])
@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([f"{UNET}.weight", f"mid_block.{UNET}.bias"], [f"{UNET}.weight"]),
        ([f"model.diffusion_model.{UNET}.weight"], [f"model.diffusion_model.{UNET}.weight"]),
        ([f"unet.{UNET}.weight", f"controlnet.{UNET}.weight"], [f"unet.{UNET}.weight"]),
        ([f"xdown_{UNET[5:]}.weight"], []),
        ([f"a.{UNET}.weight", f"b.{UNET}.weight"], [f"a.{UNET}.weight", f"b.{UNET}.weight"]),
    ],
)
def test_kohya_names_lose_their_dots(names: list[str], found: list[str], ending: str) -> None:
    wanted = "lora_unet_" + UNET.replace(".", "_") + ending
    assert Names(names).like(wanted) == found


def test_kohya_text_encoders_are_told_apart_in_a_pipeline() -> None:
    name = "text_model.encoder.layers.0.self_attn.q_proj"
    names = Names([f"text_encoder.{name}.weight", f"text_encoder_2.{name}.weight"])
    flat = name.replace(".", "_")
    assert names.like(f"lora_te1_{flat}") == [f"text_encoder.{name}.weight"]
    assert names.like(f"lora_te2_{flat}") == [f"text_encoder_2.{name}.weight"]
