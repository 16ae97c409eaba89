"""Passes that begin where the last one got to find what whole passes find, and take linear work."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import CleanSubspaceStep
from loramend.contracts.job import Progress
from loramend.methods.clean_subspace import clean_subspace
from loramend.training import replay
from loramend.training.host import Host
from loramend.training.session import Session
from tests.support_session import context_of, session_of, unlabelled
from tests.text_models import (
    bert_folder,
    gpt2_folder,
    llama_folder,
    random_adapter,
    save_bert_tokenizer,
    toy_examples,
    vocabulary,
)

pytestmark = pytest.mark.slow

LAYERS = 4
TEXTS = toy_examples(70, seed=3)
SEP, PAD = vocabulary()["[SEP]"], vocabulary()["[PAD]"]
COMMON: Mapping[str, Any] = {"vocab_size": len(vocabulary()), "pad_token_id": PAD, "eos_token_id": SEP}


def albert_folder(tmp: Path, layers: int) -> Path:
    """Blocks that run twice in a row each."""
    sizes: Any = {"embedding_size": 16, "hidden_size": 32, "intermediate_size": 64}
    config = AlbertConfig(
        num_hidden_layers=2 * layers,
        num_hidden_groups=layers,
        num_attention_heads=4,
        initializer_range=0.1,
        **sizes,
        **COMMON,
    )
    return saved(AlbertForSequenceClassification(config), tmp / "albert")


def bart_folder(tmp: Path, layers: int) -> Path:
    """Every block of the decoder reads the encoder's end."""
    size = {"layers": layers, "ffn_dim": 64, "attention_heads": 4}
    sizes: Any = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in size.items()}
    config = BartConfig(
        d_model=32, max_position_embeddings=64, decoder_start_token_id=SEP, init_std=0.1, **sizes, **COMMON
    )
    return saved(BartForSequenceClassification(config), tmp / "bart")


def t5_folder(tmp: Path, layers: int) -> Path:
    """Blocks return tuples, and hand on what the first one made of the positions."""
    sizes: Any = {"num_layers": layers, "num_heads": 4, "decoder_start_token_id": PAD}
    config = T5Config(d_model=32, d_kv=8, d_ff=64, **sizes, **COMMON)
    return saved(T5ForSequenceClassification(config), tmp / "t5")


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    save_bert_tokenizer(folder)
    return folder


FOLDERS: Mapping[str, Callable[[Path, int], Path]] = {
    "bert": lambda tmp, layers: bert_folder(tmp, layers=layers),
    "llama": lambda tmp, layers: llama_folder(tmp, layers=layers),
    "gpt2": lambda tmp, layers: gpt2_folder(tmp, layers=layers),
    "albert": albert_folder,
    "bart": bart_folder,
    "t5": t5_folder,
}
TARGETS: Mapping[str, Mapping[str, Any]] = {
    "albert": {"target_modules": ["query", "value", "ffn"], "task_type": "SEQ_CLS"},
    "bart": {"target_modules": ["q_proj", "v_proj", "fc1", "fc2"], "task_type": "SEQ_CLS"},
    "t5": {"target_modules": ["q", "v", "wi", "wo"], "task_type": "SEQ_CLS"},
}


class Case:
    """A tiny model, an adapter on it, and what clean_subspace makes of it."""

    def __init__(self, tmp: Path, model: str, layers: int = LAYERS, **adapter: Any) -> None:
        torch.manual_seed(0)
        self.folder = FOLDERS[model](tmp, layers)
        settings = {**TARGETS.get(model, {}), **adapter}
        self.adapter = read_adapter(random_adapter(self.folder, tmp / "adapter", std=0.3, **settings))

    def session(self, **settings: Any) -> Session:
        return session_of(self.folder, self.adapter, texts=unlabelled(TEXTS), **settings)

    def taken(self, session: Session, **params: Any) -> tuple[dict[str, tuple[Tensor, Tensor]], int]:
        """The factors by module, and how many texts went through target layers."""
        passes = 0

        def count(_layer: object, inputs: tuple[Tensor, ...], _output: object) -> None:
            nonlocal passes
            passes += inputs[0].shape[0]

        hooks = [layer.register_forward_hook(count) for layer in set(session.host.layers.values())]
        step = CleanSubspaceStep(**{"k": 3, **params})
        outcomes = list(clean_subspace(self.adapter, step, context_of(self.folder), session))
        for hook in hooks:
            hook.remove()
        assert all(outcome.applied for outcome in outcomes)
        return {outcome.name: (outcome.update.A, outcome.update.B) for outcome in outcomes}, passes


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Case, Session], Any]:
    """What comes out where every pass begins at the embeddings."""

    def run(case: Case, session: Session, **params: Any) -> tuple[dict[str, tuple[Tensor, Tensor]], int]:
        with monkeypatch.context() as patch:
            patch.setattr("loramend.methods.clean_subspace.replay_of", lambda *_: replay.Replay())
            return case.taken(session, **params)

    return run


Plainly = Callable[..., tuple[dict[str, tuple[Tensor, Tensor]], int]]


def assert_same(
    found: Mapping[str, tuple[Tensor, Tensor]], expected: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    assert found.keys() == expected.keys()
    for name, factors in found.items():
        for x, y in zip(factors, expected[name], strict=True):
            assert torch.equal(x, y), name


def blocks_of(host: Host) -> nn.ModuleList:
    return next(m for m in host.module.modules() if isinstance(m, nn.ModuleList) and len(m) == LAYERS)


@pytest.mark.parametrize("side", ["input", "output", "both"])
@pytest.mark.parametrize("model", ["bert", "llama", "gpt2", "bart", "t5"])
def test_results_are_the_same_bit_by_bit(tmp_path: Path, plainly: Plainly, model: str, side: str) -> None:
    case = Case(tmp_path, model)
    expected, before = plainly(case, case.session(), side=side)
    found, after = case.taken(case.session(), side=side)
    assert_same(found, expected)
    assert after < before


def test_chunks_are_replayed_too(tmp_path: Path, plainly: Plainly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loramend.methods.clean_subspace.MOMENT_BYTES", 30_000)
    case = Case(tmp_path, "llama")
    expected, before = plainly(case, case.session(), refresh=False)
    found, after = case.taken(case.session(), refresh=False)
    assert_same(found, expected)
    assert after < before


def test_checkpointed_blocks_behind_one_without_updates(tmp_path: Path, plainly: Plainly) -> None:
    case = Case(tmp_path, "llama", layers_to_transform=[1, 2, 3], layers_pattern="layers")
    expected, before = plainly(case, case.session(gradient_checkpointing=True))
    found, after = case.taken(case.session(gradient_checkpointing=True))
    assert_same(found, expected)
    assert after < before


def test_shared_layers_run_plainly(tmp_path: Path, plainly: Plainly) -> None:
    case = Case(tmp_path, "albert")
    expected, before = plainly(case, case.session())
    found, after = case.taken(case.session())
    assert_same(found, expected)
    assert after >= before


def skip(blocks: nn.ModuleList) -> None:
    """The first block's output is added to what the last one reads."""
    _handed_on(blocks[0], blocks[-1])


def state(blocks: nn.ModuleList) -> None:
    """A module inside of the first block leaves something behind for the last one."""
    _handed_on(next(m for m in blocks[0].modules() if isinstance(m, nn.LayerNorm)), blocks[-1])


def to_the_end(blocks: nn.ModuleList) -> None:
    """The first block's output is added to what the last one returns."""
    left: list[Any] = [None]
    blocks[0].register_forward_hook(lambda _m, _i, output: left.__setitem__(0, output))
    blocks[-1].register_forward_hook(lambda _m, _i, output: output + left[0])


def boxed(blocks: nn.ModuleList) -> None:
    """A block returns what is no tensor."""
    forward = blocks[1].forward
    vars(blocks[1])["forward"] = lambda *args, **kwargs: Boxed(forward(*args, **kwargs))
    blocks[2].register_forward_pre_hook(lambda _m, inputs: (inputs[0].x, *inputs[1:]))


class Boxed:
    def __init__(self, x: Tensor) -> None:
        self.x = x


def _handed_on(source: nn.Module, reader: nn.Module) -> None:
    left: list[Any] = [None]
    source.register_forward_hook(lambda _m, _i, output: left.__setitem__(0, output))
    reader.register_forward_pre_hook(lambda _m, inputs: (inputs[0] + left[0], *inputs[1:]))


def test_a_connection_past_the_last_updates_runs_plainly(tmp_path: Path, plainly: Plainly) -> None:
    """The gradients of the last group begin behind blocks without updates, one of which the end reads."""
    case = Case(tmp_path, "llama", 6, layers_to_transform=[0, 4], layers_pattern="layers")
    sessions = [case.session(), case.session()]
    for session in sessions:
        blocks = next(m for m in session.host.module.modules() if isinstance(m, nn.ModuleList))
        _handed_on(blocks[2], blocks[5])
    expected, _ = plainly(case, sessions[0], side="both")
    found, _ = case.taken(sessions[1], side="both")
    assert_same(found, expected)


@pytest.mark.parametrize("changed", [skip, state, to_the_end, boxed])
@pytest.mark.parametrize("side", ["input", "both"])
def test_other_models_than_chains_of_blocks_run_plainly(
    tmp_path: Path, plainly: Plainly, changed: Callable[[nn.ModuleList], None], side: str
) -> None:
    case = Case(tmp_path, "gpt2")
    sessions = [case.session(), case.session()]
    for session in sessions:
        changed(blocks_of(session.host))
    expected, before = plainly(case, sessions[0], side=side)
    found, after = case.taken(sessions[1], side=side)
    assert_same(found, expected)
    assert after >= before


def test_each_layer_runs_a_constant_number_of_times(tmp_path: Path, plainly: Plainly) -> None:
    cases = [Case(tmp_path / str(layers), "llama", layers) for layers in (3, 6, 12)]
    few, more, most = (case.taken(case.session())[1] for case in cases)
    assert most - more == 2 * (more - few)
    few, more, most = (plainly(case, case.session())[1] for case in cases)
    assert most - more > 3 * (more - few)


def test_batches_beyond_the_memory_run_plainly(
    tmp_path: Path, plainly: Plainly, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, "llama")
    expected, before = plainly(case, case.session())
    whole, after = case.taken(case.session())
    longest = max(len(item.ids) for item in case.session().host.encode(unlabelled(TEXTS), 64))
    monkeypatch.setattr(replay, "KEPT_BYTES", 4 * 32 * 32 * longest)
    found, between = case.taken(case.session())
    assert_same(found, expected)
    assert_same(whole, expected)
    assert after < between < before


def test_progress_is_told_as_before_and_no_forward_stays_substituted(
    tmp_path: Path, plainly: Plainly
) -> None:
    case = Case(tmp_path, "bert")
    told: list[list[Progress]] = [[], []]
    plainly(case, case.session(on_progress=told[0].append), side="both")
    session = case.session(on_progress=told[1].append)
    case.taken(session, side="both")
    assert told[0] == told[1]
    assert told[1][-1].total == 2 * LAYERS * len(TEXTS)
    assert not any("forward" in vars(module) for module in session.host.module.modules())
