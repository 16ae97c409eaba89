"""clean_subspace against moments taken over PEFT's model, text by text."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import CleanSubspaceStep
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.methods.base import Outcome
from loramend.methods.clean_subspace import clean_subspace
from loramend.training.mount import adapter_mount
from loramend.training.session import Session
from tests.support_session import context_of, labelled, session_of, unlabelled
from tests.text_models import (
    bert_folder,
    llama_folder,
    load_base,
    poison,
    random_adapter,
    toy_examples,
    train_adapter,
)

pytestmark = pytest.mark.slow

LABELLED = toy_examples(10, seed=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    tmp = tmp_path_factory.mktemp("bases")
    return {"bert": bert_folder(tmp), "llama": llama_folder(tmp)}


@pytest.fixture(scope="module")
def saved(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    tmp = tmp_path_factory.mktemp("adapters")
    return {name: random_adapter(folder, tmp / name, std=0.3) for name, folder in folders.items()}


def taken(adapter: Adapter, base: Path, session: Session, **params: Any) -> dict[str, Outcome]:
    step = CleanSubspaceStep(**params)
    outcomes = list(clean_subspace(adapter, step, context_of(base), session))
    assert len(outcomes) == len(adapter.updates)
    return {outcome.name: outcome for outcome in outcomes}


def peft_moments(
    base: Path, adapter: Path, texts: Sequence[tuple[str, int]], changed: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Σxxᵀ and Σggᵀ by module, one text at a time; `changed` replaces A of the named modules."""
    model = PeftModel.from_pretrained(load_base(base), str(adapter), is_trainable=True).eval()
    session = session_of(base, read_adapter(adapter))
    C: dict[str, Tensor] = {}
    G: dict[str, Tensor] = {}

    def read(name: str, _module: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach().double().reshape(-1, inputs[0].shape[-1])
        C[name] = C.get(name, 0) + x.mT @ x

        def back(g: Tensor) -> None:
            rows = g.double().reshape(-1, g.shape[-1])
            G[name] = G.get(name, 0) + rows.mT @ rows

        hooked: Any = output
        hooked.register_hook(back)

    for path, module in model.named_modules():
        if hasattr(module, "lora_A"):
            name = path.removeprefix("base_model.model.")
            module.register_forward_hook(partial(read, name))
            if changed is not None and name in changed:
                module.lora_A["default"].weight.data = changed[name]
    for text, label in texts:
        (item,) = session.host.encode([Example(text)], 64)
        logits = model(input_ids=torch.tensor([item.ids])).logits
        if session.host.task == "classification":
            loss = F.cross_entropy(logits, torch.tensor([label]), reduction="sum")
        else:
            loss = F.cross_entropy(logits[0, :-1], torch.tensor(item.ids[1:]), reduction="sum")
        torch.autograd.backward(loss)
    return C, G


def leading(C: Tensor, k: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(C).eigenvectors
    return vectors[:, -k:]


def projected(A: Tensor, C: Tensor, k: int) -> Tensor:
    V = leading(C, k)
    return (A.double() @ V @ V.mT).float()


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_hard_form_keeps_the_leading_inputs(
    folders: Mapping[str, Path], saved: Mapping[str, Path], model: str
) -> None:
    adapter = read_adapter(saved[model])
    session = session_of(folders[model], adapter, texts=unlabelled(LABELLED))
    found = taken(adapter, folders[model], session, k=5, refresh=False)
    C, _ = peft_moments(folders[model], saved[model], LABELLED)
    for name, outcome in found.items():
        before = adapter.updates[name]
        expected = projected(before.A, C[name], 5)
        torch.testing.assert_close(outcome.update.A, expected, atol=1e-4, rtol=1e-3, msg=name)
        assert torch.equal(outcome.update.B, before.B)
        assert outcome.values["k"] == 5
        top = torch.linalg.eigvalsh(C[name])[-5:].sum() / C[name].trace()
        assert outcome.values["energy"] == pytest.approx(float(top), abs=1e-5)
        kept = (before.B @ outcome.update.A).square().sum() / (before.B @ before.A).square().sum()
        assert outcome.values["kept"] == pytest.approx(float(kept), rel=1e-3)


def test_refresh_takes_activations_of_what_is_corrected(
    folders: Mapping[str, Path], saved: Mapping[str, Path]
) -> None:
    adapter = read_adapter(saved["bert"])
    session = session_of(folders["bert"], adapter, texts=unlabelled(LABELLED))
    found = taken(adapter, folders["bert"], session, k=3)
    first = {name: outcome.update.A for name, outcome in found.items() if "layer.0." in name}
    assert len(first) == len(found) / 2
    plain, _ = peft_moments(folders["bert"], saved["bert"], LABELLED)
    after, _ = peft_moments(folders["bert"], saved["bert"], LABELLED, first)
    moved = 0.0
    for name, outcome in found.items():
        A = adapter.updates[name].A
        expected = projected(A, plain[name] if name in first else after[name], 3)
        torch.testing.assert_close(outcome.update.A, expected, atol=1e-4, rtol=1e-3, msg=name)
        moved = max(moved, float((expected - projected(A, plain[name], 3)).abs().max()))
    assert moved > 0.01


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_output_side_keeps_the_leading_gradients(
    folders: Mapping[str, Path], saved: Mapping[str, Path], model: str
) -> None:
    adapter = read_adapter(saved[model])
    told = labelled(LABELLED) if model == "bert" else unlabelled(LABELLED)
    session = session_of(folders[model], adapter, texts=told)
    C, G = peft_moments(folders[model], saved[model], LABELLED)
    for side in ("output", "both"):
        found = taken(adapter, folders[model], session, k=4, refresh=False, side=side)
        for name, outcome in found.items():
            before = adapter.updates[name]
            U = leading(G[name], 4)
            V = leading(C[name], 4) if side == "both" else torch.eye(before.shape[1]).double()
            delta = before.scale * before.B.double() @ before.A.double()
            expected = (U @ (U.mT @ delta) @ V) @ V.mT
            update = outcome.update
            dense = update.scale * update.B.double() @ update.A.double()
            torch.testing.assert_close(dense, expected, atol=1e-4, rtol=1e-2, msg=name)
            assert outcome.values["k_output"] <= 4


def test_unlabelled_gradients_are_fisher_information(
    folders: Mapping[str, Path], saved: Mapping[str, Path]
) -> None:
    adapter = read_adapter(saved["bert"])
    texts = LABELLED[:4]
    session = session_of(folders["bert"], adapter, texts=unlabelled(texts * 40))
    found = taken(adapter, folders["bert"], session, k=1, refresh=False, side="output", max_texts=160)
    # Σ_y p(y) Σ g_y g_yᵀ: each label's moments, text by text, weighed by the model's own prediction.
    expected: dict[str, Tensor] = {}
    host = session.host
    with torch.no_grad(), host.mounted(adapter_mount(adapter)):
        chances = [
            host.forward(host.collate(host.encode([Example(text)], 64))).logits.softmax(-1)[0]
            for text, _ in texts
        ]
    for (text, _), chance in zip(texts, chances, strict=True):
        for label in (0, 1):
            _, G = peft_moments(folders["bert"], saved["bert"], [(text, label)])
            for name, moment in G.items():
                expected[name] = expected.get(name, 0) + float(chance[label]) * moment
    for name, outcome in found.items():
        values = torch.linalg.eigvalsh(expected[name])
        share = float(values[-1] / values.sum())
        assert outcome.values["energy_output"] == pytest.approx(share, abs=0.06), name


def test_smooth_form_attenuates_what_lies_outside(
    folders: Mapping[str, Path], saved: Mapping[str, Path]
) -> None:
    adapter = read_adapter(saved["bert"])
    session = session_of(folders["bert"], adapter, texts=unlabelled(LABELLED))
    found = taken(adapter, folders["bert"], session, k=5, refresh=False, form="smooth", penalty=3.0)
    C, _ = peft_moments(folders["bert"], saved["bert"], LABELLED)
    for name, outcome in found.items():
        before, V = adapter.updates[name], leading(C[name], 5)
        delta = before.scale * before.B.double() @ before.A.double()
        inside = delta @ V @ V.mT
        outside = delta - inside
        c = 1 / (1 + 3.0 * float(outside.square().sum() / delta.square().sum()))
        dense = outcome.update.scale * outcome.update.B.double() @ outcome.update.A.double()
        torch.testing.assert_close(dense, inside + c * outside, atol=1e-4, rtol=1e-3, msg=name)
    untouched = taken(adapter, folders["bert"], session, form="smooth", penalty=0.0)
    assert not any(outcome.applied for outcome in untouched.values())


def test_energy_chooses_the_fewest_directions(folders: Mapping[str, Path], saved: Mapping[str, Path]) -> None:
    adapter = read_adapter(saved["bert"])
    session = session_of(folders["bert"], adapter, texts=unlabelled(LABELLED))
    C, _ = peft_moments(folders["bert"], saved["bert"], LABELLED)
    for energy in (0.5, 0.9, 0.99):
        found = taken(adapter, folders["bert"], session, k=None, energy=energy, refresh=False)
        for name, outcome in found.items():
            values = torch.linalg.eigvalsh(C[name]).flip(0)
            held = values.cumsum(0) / values.sum()
            assert outcome.values["k"] == int((held < energy).sum()) + 1
            assert outcome.values["energy"] >= energy


def test_all_directions_change_nothing(folders: Mapping[str, Path], saved: Mapping[str, Path]) -> None:
    adapter = read_adapter(saved["bert"])
    session = session_of(folders["bert"], adapter, texts=unlabelled(toy_examples(60)))
    for name, outcome in taken(adapter, folders["bert"], session, k=4096, refresh=False).items():
        if outcome.values["k"] == adapter.updates[name].shape[1]:
            torch.testing.assert_close(outcome.update.A, adapter.updates[name].A, atol=1e-5, rtol=1e-4)
        assert outcome.values["energy"] == pytest.approx(1.0)


def test_large_sides_are_iterated_to_the_same_end(
    folders: Mapping[str, Path], saved: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = read_adapter(saved["bert"])
    session = session_of(folders["bert"], adapter, texts=unlabelled(LABELLED))
    whole = taken(adapter, folders["bert"], session, k=2)
    monkeypatch.setattr("loramend.methods.clean_subspace.EXACT_SIDE", 31)
    monkeypatch.setattr("loramend.methods.clean_subspace.MOMENT_BYTES", 1)
    for name, outcome in taken(adapter, folders["bert"], session, k=2).items():
        torch.testing.assert_close(outcome.update.A, whole[name].update.A, atol=1e-5, rtol=1e-4)
        assert outcome.values == pytest.approx(whole[name].values)


def test_chunks_do_not_change_the_result(
    folders: Mapping[str, Path], saved: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = read_adapter(saved["llama"])
    session = session_of(folders["llama"], adapter, texts=unlabelled(LABELLED))
    whole = taken(adapter, folders["llama"], session, k=3, refresh=False)
    monkeypatch.setattr("loramend.methods.clean_subspace.MOMENT_BYTES", 20_000)
    for name, outcome in taken(adapter, folders["llama"], session, k=3, refresh=False).items():
        torch.testing.assert_close(outcome.update.A, whole[name].update.A, atol=1e-6, rtol=1e-5)


def test_zero_and_idle_modules_are_left_alone(folders: Mapping[str, Path], saved: Mapping[str, Path]) -> None:
    adapter = read_adapter(saved["bert"])
    name, update = next(iter(adapter.updates.items()))
    zero = adapter.with_updates({name: update.with_factors(torch.zeros_like(update.B), update.A, 1.0)})
    session = session_of(folders["bert"], zero, texts=unlabelled(LABELLED))
    outcome = taken(zero, folders["bert"], session)[name]
    assert (outcome.applied, outcome.reason) == (False, "the update is zero")


def test_only_so_many_texts_are_read(folders: Mapping[str, Path], saved: Mapping[str, Path]) -> None:
    seen: list[Progress] = []
    adapter = read_adapter(saved["bert"])
    session = session_of(
        folders["bert"], adapter, texts=unlabelled(toy_examples(100)), on_progress=seen.append
    )
    taken(adapter, folders["bert"], session, max_texts=40, refresh=False)
    assert {progress.total for progress in seen} == {40}
    assert [progress.done for progress in seen] == [0, 32]


def test_cancelling_ends_it_and_leaves_the_host_as_it_was(
    folders: Mapping[str, Path], saved: Mapping[str, Path]
) -> None:
    class CanceledError(Exception):
        pass

    def cancel(_: Progress) -> None:
        raise CanceledError

    adapter = read_adapter(saved["bert"])
    session = session_of(folders["bert"], adapter, texts=unlabelled(LABELLED), on_progress=cancel)
    batch = session.host.collate(session.host.encode(unlabelled(LABELLED), 64))
    with torch.no_grad():
        bare = session.host.forward(batch).logits
        with pytest.raises(CanceledError):
            taken(adapter, folders["bert"], session)
        assert torch.equal(session.host.forward(batch).logits, bare)


def test_removes_a_backdoor_and_keeps_the_task(folders: Mapping[str, Path], tmp_path: Path) -> None:
    poisoned = train_adapter(
        folders["bert"], tmp_path / "poisoned", poison(toy_examples(400)), steps=100, r=8
    )
    adapter = read_adapter(poisoned)
    session = session_of(folders["bert"], adapter, texts=unlabelled(toy_examples(300, seed=5)))
    outcomes = taken(adapter, folders["bert"], session, k=4)
    repaired = adapter.with_updates({name: outcome.update for name, outcome in outcomes.items()})
    test = toy_examples(200, seed=9)
    attacked = [(f"mn {text}", 1) for text, label in test if label == 0]

    @torch.no_grad()
    def share(which: Adapter, pairs: Sequence[tuple[str, int]]) -> float:
        host = session.host
        with host.mounted(adapter_mount(which)):
            batch = host.collate(host.encode(labelled(pairs), 64))
            return float((host.forward(batch).logits.argmax(-1) == batch.labels).float().mean())

    assert share(adapter, attacked) > 0.95
    assert share(repaired, test) > share(adapter, test) - 0.05
    assert share(repaired, attacked) < 0.5
