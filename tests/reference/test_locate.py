from pathlib import Path

import pytest
import torch
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.errors import ReferenceModelError
from loramend.reference.open import open_references
from tests.reference.checkpoints import normal, save_single, update_of


def base_of(model: Path, update: Update) -> Tensor:
    """W_base of the update, through the public interface."""
    with open_references(model, None) as references:
        references.check([update])
        return references.base(update)


def refused(model: Path, *updates: Update) -> ReferenceModelError:
    with open_references(model, None) as references, pytest.raises(ReferenceModelError) as caught:
        references.check(updates)
    return caught.value


def test_linear_and_transposed_weights_are_turned_to_out_in(tmp_path: Path) -> None:
    W, E = normal(6, 4), normal(10, 4)
    model = save_single(tmp_path, {"a.weight": W, "conv1d.weight": W.mT, "embed.weight": E})
    assert torch.equal(base_of(model, update_of("a.weight", (6, 4))), W)
    assert torch.equal(base_of(model, update_of("conv1d.weight", (6, 4), transposed=True)), W)
    embedding = update_of("embed.weight", (4, 10), kind="embedding", transposed=True)
    assert torch.equal(base_of(model, embedding), E.mT)


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (1, 1)])
def test_convolutions_are_flattened(tmp_path: Path, kernel: tuple[int, ...]) -> None:
    W = normal(6, 4, *kernel)
    model = save_single(tmp_path, {"conv.weight": W})
    update = update_of("conv.weight", (6, W[0].numel()), kind="conv")
    assert torch.equal(base_of(model, update), W.reshape(6, -1))


def test_a_wrong_shape_tells_both(tmp_path: Path) -> None:
    model = save_single(tmp_path, {"m.a.weight": normal(6, 4), "b.weight": normal(6)})
    for shape, stored in [((4, 6), "[6, 4]"), ((8, 4), "[6, 4]")]:
        error = refused(model, update_of("m.a.weight", shape))
        assert error.code == "reference_mismatch"
        assert error.where == "m.a"
        assert stored in error.detail
        assert str(list(shape)) in error.detail
    assert refused(model, update_of("b.weight", (6, 1))).code == "reference_mismatch"
    assert refused(model, update_of("m.a.weight", (6, 4), transposed=True)).code == "reference_mismatch"


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    error = refused(save_single(tmp_path, {"a.weight": normal(6, 4)}), update_of("layers.0.b.weight", (6, 4)))
    assert error.code == "reference_mismatch"
    assert error.where == "layers.0.b"
    assert "layers.0.b.weight" in error.detail


def test_an_ambiguity_lists_the_candidates_and_shape_can_settle_it(tmp_path: Path) -> None:
    model = save_single(
        tmp_path, {"one.layers.0.q.weight": normal(6, 4), "two.layers.0.q.weight": normal(8, 4)}
    )
    assert base_of(model, update_of("layers.0.q.weight", (8, 4))).shape == (8, 4)
    model = save_single(
        tmp_path, {"one.layers.0.q.weight": normal(6, 4), "two.layers.0.q.weight": normal(6, 4)}
    )
    error = refused(model, update_of("layers.0.q.weight", (6, 4)))
    assert error.code == "reference_mismatch"
    assert "one.layers.0.q.weight" in error.detail
    assert "two.layers.0.q.weight" in error.detail


def test_two_weights_may_not_lead_to_one_tensor(tmp_path: Path) -> None:
    model = save_single(tmp_path, {"layers.0.q.weight": normal(6, 4)})
    ours, theirs = update_of("text.layers.0.q.weight", (6, 4)), update_of("vision.layers.0.q.weight", (6, 4))
    error = refused(model, ours, theirs)
    assert error.code == "reference_mismatch"
    assert "both lead to layers.0.q.weight" in error.detail


@pytest.mark.parametrize(
    "config",
    [
        {"tie_word_embeddings": True},
        {"text_config": {"tie_word_embeddings": True}},
        {"model_type": "of transformers 4, which did not write its default"},
        {"model_type": ["odd"]},
    ],
)
def test_tied_heads_use_the_embedding(tmp_path: Path, config: dict[str, object]) -> None:
    E = normal(10, 4)
    model = save_single(tmp_path, {"model.embed_tokens.weight": E}, config)
    head = update_of("lm_head.weight", (10, 4))
    embedding = update_of("model.embed_tokens.weight", (4, 10), kind="embedding", transposed=True)
    assert torch.equal(base_of(model, head), E)
    with open_references(model, None) as references:
        references.check([head, embedding])


@pytest.mark.parametrize(
    "name", ["transformer.wte.weight", "wte.weight", "transformer.word_embeddings.weight"]
)
def test_tied_heads_use_embeddings_of_other_names(tmp_path: Path, name: str) -> None:
    E = normal(10, 4)
    model = save_single(tmp_path, {name: E}, {"tie_word_embeddings": True})
    assert torch.equal(base_of(model, update_of("lm_head.weight", (10, 4))), E)


@pytest.mark.parametrize("flag", [False, True])
def test_a_model_that_mixes_conv1d_and_linear_goes_by_names(tmp_path: Path, flag: bool) -> None:
    """PEFT saves one fan_in_fan_out for both, as the last layer of the model left it."""
    wide, square, head = normal(4, 12), normal(4, 4), normal(4, 4, seed=1)
    tensors = {"transformer.h.0.attn.c_attn.weight": wide, "transformer.h.0.attn.c_proj.weight": square}
    model = save_single(tmp_path, {**tensors, "score.weight": head}, {"model_type": "gpt2"})
    for weight, shape, expected in [
        ("transformer.h.0.attn.c_attn.weight", (12, 4), wide.mT),
        ("transformer.h.0.attn.c_proj.weight", (4, 4), square.mT),
        ("score.weight", (4, 4), head),
    ]:
        assert torch.equal(base_of(model, update_of(weight, shape, transposed=flag)), expected)


@pytest.mark.parametrize("config", [None, {}, {"tie_word_embeddings": False}])
def test_untied_heads_do_not(tmp_path: Path, config: dict[str, object] | None) -> None:
    model = save_single(tmp_path, {"model.embed_tokens.weight": normal(10, 4)}, config)
    assert refused(model, update_of("lm_head.weight", (10, 4))).code == "reference_mismatch"


def expert_of(weight: str, shape: tuple[int, int], expert: int, *, transposed: bool = False) -> Update:
    return update_of(weight, shape, kind="parameter", expert=expert, transposed=transposed)


def test_experts_of_a_fused_tensor_lie_either_way(tmp_path: Path) -> None:
    plain, turned, square = normal(3, 6, 4), normal(3, 4, 6), normal(3, 4, 4)
    model = save_single(tmp_path, {"p": plain, "t": turned, "s": square})
    for flag in (False, True):
        assert torch.equal(base_of(model, expert_of("p", (6, 4), 2, transposed=flag)), plain[2])
        assert torch.equal(base_of(model, expert_of("t", (6, 4), 1, transposed=flag)), turned[1].mT)
    assert torch.equal(base_of(model, expert_of("s", (4, 4), 0)), square[0])
    assert torch.equal(base_of(model, expert_of("s", (4, 4), 0, transposed=True)), square[0].mT)
    assert refused(model, expert_of("p", (6, 4), 3)).code == "reference_mismatch"
    assert refused(model, expert_of("p", (5, 4), 0)).code == "reference_mismatch"


@pytest.mark.parametrize("inter", [4, 2])
@pytest.mark.parametrize("by_columns", [False, True])
def test_square_experts_lie_as_their_siblings(tmp_path: Path, inter: int, by_columns: bool) -> None:
    """gpt-oss has hidden = inter and stores (in, out); with hidden = 2·inter it is gate_up_proj that is
    square."""
    hidden, prefix = 4, "model.layers.0.mlp.experts"
    weights = {"gate_up_proj": normal(3, 2 * inter, hidden), "down_proj": normal(3, hidden, inter)}
    stored = {f"{prefix}.{name}": W.mT if by_columns else W for name, W in weights.items()}
    model = save_single(tmp_path, stored)
    for name, W in weights.items():
        shape = (W.shape[1], W.shape[2])
        assert torch.equal(base_of(model, expert_of(f"{prefix}.{name}", shape, 1)), W[1])


@pytest.mark.parametrize(
    ("parent", "gate", "up", "down"),
    [
        ("model.layers.0.mlp", "gate_proj", "up_proj", "down_proj"),
        ("model.layers.0.block_sparse_moe", "w1", "w3", "w2"),
    ],
)
def test_experts_kept_apart_are_stacked_as_transformers_does(
    tmp_path: Path, parent: str, gate: str, up: str, down: str
) -> None:
    tensors = {}
    for expert in range(2):
        for seed, (part, shape) in enumerate([(gate, (5, 4)), (up, (5, 4)), (down, (4, 5))]):
            tensors[f"{parent}.experts.{expert}.{part}.weight"] = normal(*shape, seed=10 * expert + seed)
    model = save_single(tmp_path, tensors)
    prefix = f"{parent}.experts.1"
    gate_up = expert_of("model.layers.0.mlp.experts.gate_up_proj", (10, 4), 1)
    expected = torch.cat([tensors[f"{prefix}.{gate}.weight"], tensors[f"{prefix}.{up}.weight"]])
    assert torch.equal(base_of(model, gate_up), expected)
    whole = expert_of("model.layers.0.mlp.experts.down_proj", (4, 5), 1)
    assert torch.equal(base_of(model, whole), tensors[f"{prefix}.{down}.weight"])
    for wrong in (
        expert_of("model.layers.0.mlp.experts.gate_up_proj", (12, 4), 1),
        expert_of("model.layers.0.mlp.experts.gate_up_proj", (10, 4), 2),
        expert_of("model.layers.0.mlp.experts.other", (4, 5), 1),
    ):
        assert refused(model, wrong).code == "reference_mismatch"


@pytest.mark.parametrize(
    "tensors",
    [
        {"l.0.q.qweight": torch.zeros(4, 4, dtype=torch.int32)},
        {"l.0.q.weight": torch.zeros(16, 1, dtype=torch.uint8), "l.0.q.weight.absmax": torch.zeros(4)},
        {"l.0.q.weight": torch.zeros(6, 4, dtype=torch.int8), "l.0.q.SCB": torch.zeros(6)},
        {"l.0.q.weight": torch.zeros(6, 4).to(torch.float8_e4m3fn)},
        {"l.0.q.weight_packed": torch.zeros(6, 1, dtype=torch.int32)},
    ],
)
def test_quantised_models_are_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    error = refused(save_single(tmp_path, tensors), update_of("l.0.q.weight", (6, 4)))
    assert error.code == "reference_invalid"
    assert "unquantised" in error.detail
