"""The loop repeats bit for bit, goes on after a death as if nothing had been, and leaves no trace."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import DataError, RequestError
from loramend.contracts.job import Progress
from loramend.data.examples import Example, Message
from loramend.training.checkpoint import FolderCheckpoints, Journal
from loramend.training.constraint import Constraint
from loramend.training.encode import Encoded
from loramend.training.host import Output
from loramend.training.loop import Run, parameters_of, train
from loramend.training.mount import adapter_mount
from loramend.training.session import Session
from loramend.training.student import student
from tests.support_session import context_of, labelled, session_of, unlabelled
from tests.text_models import bert_folder, llama_folder, random_adapter, toy_examples

pytestmark = pytest.mark.slow

ALL_ON = RoraStep(
    steps=8,
    batch=6,
    lr=1e-3,
    dropout=0.1,
    lora_dropout=0.1,
    penalty=10.0,
    k=4,
    head="train",
    features=1.0,
    recombine=0.34,
    mixup=0.25,
    adversary=1.0,
    checkpoint_every=3,
)


class DiedError(Exception):
    """What a test has a run die of."""


@dataclass(frozen=True)
class Bench:
    base: Path
    adapter: Adapter

    def session(self, **options: bool) -> Session:
        pairs = toy_examples(40)
        return session_of(
            self.base,
            self.adapter,
            train=labelled(pairs[:10]),
            texts=unlabelled(pairs[10:]),
            gradient_checkpointing=options.get("gradient_checkpointing", False),
        )

    def run(self, params: RoraStep, session: Session | None = None, *, seed: int = 0, key: str = "k") -> Run:
        session = session or self.session()
        mount = student(session.host, self.adapter, params, seed)
        constraint = None
        if params.penalty:
            references = context_of(self.base).references
            spectra = {u.name: references.base_spectrum(u, params.k) for u in self.adapter.updates.values()}
            constraint = Constraint(mount.trained, spectra, params.reduction)
        taught = bool(params.teacher or params.features)
        return Run(
            host=session.host,
            mount=mount,
            teacher=adapter_mount(self.adapter) if taught else None,
            texts=session.texts if taught else session.labelled,
            plain=False,
            constraint=constraint,
            params=params,
            seed=seed,
            key=key,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("loop")
    base = bert_folder(folder)
    return Bench(base, read_adapter(random_adapter(base, folder / "adapter")))


def dying_at(step: int) -> Callable[[Progress], None]:
    def die(progress: Progress) -> None:
        if progress.done == step:
            raise DiedError

    return die


def silent(_: Progress) -> None:
    pass


def weights(run: Run) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters_of(run.mount).items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].equal(other[name]), name


def test_two_runs_are_the_same_bit_for_bit(bench: Bench) -> None:
    runs = []
    for noise in range(2):
        torch.manual_seed(noise)  # what the process drew before must not matter
        run = bench.run(ALL_ON)
        before = torch.get_rng_state()
        train(run, silent, None)
        assert torch.get_rng_state().equal(before)
        runs.append(weights(run))
    assert_same(*runs)


def test_another_seed_is_another_run(bench: Bench) -> None:
    runs = [bench.run(ALL_ON, seed=seed) for seed in (0, 1)]
    for run in runs:
        train(run, silent, None)
    one, other = map(weights, runs)
    assert not any(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("death", [2, 3, 4, 7, 8])
def test_a_killed_run_ends_with_an_undisturbed_ones_weights(bench: Bench, death: int, tmp_path: Path) -> None:
    undisturbed = bench.run(ALL_ON)
    expected = train(undisturbed, silent, None)
    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(DiedError):
        train(bench.run(ALL_ON), dying_at(death), kept)
    second = bench.run(ALL_ON)
    journal = train(second, silent, kept)
    assert_same(weights(second), weights(undisturbed))
    last = {2: 0, 3: 3, 4: 3, 7: 6, 8: 8}[death]
    assert journal.resumed_at == ([last] if last else [])
    assert losses(journal) == losses(expected)


def losses(journal: Journal) -> list[tuple[int, float, dict[str, float]]]:
    return [(point.step, point.loss, point.terms) for point in journal.curve]


def test_another_key_finds_no_checkpoint(bench: Bench, tmp_path: Path) -> None:
    kept = FolderCheckpoints(tmp_path)
    train(bench.run(ALL_ON), silent, kept)
    assert train(bench.run(ALL_ON, key="other"), silent, kept).resumed_at == []
    assert train(bench.run(ALL_ON), silent, kept).resumed_at == [8]


def test_a_damaged_checkpoint_starts_afresh(bench: Bench, tmp_path: Path) -> None:
    kept = FolderCheckpoints(tmp_path)
    run = bench.run(ALL_ON)
    train(run, silent, kept)
    (tmp_path / "k.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      junk")
    again = bench.run(ALL_ON)
    assert train(again, silent, kept).resumed_at == []
    assert_same(weights(again), weights(run))


def test_a_run_that_dies_leaves_the_host_as_it_was(bench: Bench) -> None:
    session = bench.session()
    batch = session.host.collate(session.host.encode(session.labelled, 64))
    session.host.mount(adapter_mount(bench.adapter))
    with torch.no_grad():
        before = session.host.forward(batch).logits
    with pytest.raises(DiedError):
        train(bench.run(ALL_ON, session), dying_at(2), None)
    with torch.no_grad():
        assert session.host.forward(batch).logits.equal(before)
    assert not session.host.module.training
    assert all(layer.p == 0 for layer in session.host.layers.values())


PLAIN = RoraStep(steps=3, batch=6, teacher=0, features=0, recombine=0, insert=0, warmup=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"dropout": 0.3},
        {"dropout": 0.3, "dropout_reading": "weight"},
        {"penalty": 10.0},
        {"lora_dropout": 0.3},
        {"insert": 1.0},
        {"features": 1.0},
        {"teacher": 1.0},
        {"teacher": 1.0, "adversary": 1.0},
        {"accumulate": 2},
        {"weight_decay": 0.5},
        {"warmup": 0.5},
    ],
)
def test_every_part_can_be_switched_on_alone(bench: Bench, changed: dict[str, object]) -> None:
    runs = [bench.run(params) for params in (PLAIN, PLAIN.model_copy(update=changed))]
    curves = [train(run, silent, None).curve for run in runs]
    one, other = map(weights, runs)
    assert not all(one[name].equal(other[name]) for name in one)
    assert curves[0][-1].terms.keys() == {"task"}
    terms = {"penalty": "omega"} | {name: name for name in ("features", "teacher", "adversary")}
    assert curves[1][-1].terms.keys() == {"task"} | {terms[name] for name in changed if name in terms}


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_mixed_batches_lie_evenly(bench: Bench, share: float, expected: int) -> None:
    """They are learned beside the others; without a teacher there are none."""
    params = PLAIN.model_copy(update={"steps": 12, "teacher": 1.0, "mixup": share})
    curve = train(bench.run(params), silent, None).curve
    mixed = ["mixup" in point.terms for point in curve]
    assert sum(mixed) == expected
    for start in (0, 4, 8):
        assert sum(mixed[start : start + 4]) == expected / 3
    assert all(point.terms.keys() - {"mixup"} == {"task", "teacher"} for point in curve)
    alone = train(bench.run(params.model_copy(update={"teacher": 0.0})), silent, None).curve
    assert all(point.terms.keys() == {"task"} for point in alone)


def test_loss_is_the_sum_of_its_terms_and_falls(bench: Bench) -> None:
    params = ALL_ON.model_copy(update={"steps": 40, "lr": 1e-2, "batch": 16})
    curve = train(bench.run(params), silent, None).curve
    assert [point.step for point in curve] == list(range(1, 41))
    for point in curve:
        assert point.loss == pytest.approx(sum(point.terms.values()), rel=1e-4)
        assert point.terms.keys() - {"mixup"} == {"task", "teacher", "features", "adversary", "omega"}
    assert sum(point.loss for point in curve[-8:]) < sum(point.loss for point in curve[:8])


def test_the_teacher_answers_mixed_texts_without_the_students_dropout(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bench.session()
    asked: list[bool] = []
    forward = session.host.forward

    def watched(batch: Encoded, **options: Any) -> Output:
        if options.get("embedded") is not None and not torch.is_grad_enabled():
            asked.append(any(layer.training for layer in session.host.layers.values()))
        return forward(batch, **options)

    monkeypatch.setattr(session.host, "forward", watched)
    train(
        bench.run(PLAIN.model_copy(update={"teacher": 1.0, "mixup": 1.0, "dropout": 0.3}), session),
        silent,
        None,
    )
    assert asked == [False] * PLAIN.steps


def test_progress_tells_every_step(bench: Bench) -> None:
    seen: list[Progress] = []
    train(bench.run(ALL_ON), seen.append, None)
    assert [told.done for told in seen] == list(range(1, 9))
    assert {told.total for told in seen} == {8}
    assert all(told.values.keys() == {"loss", "omega", "samples_per_second"} for told in seen)


def test_gradient_checkpointing_changes_nothing(bench: Bench) -> None:
    """Layers that run again in backward draw the same dropout."""
    runs = [bench.run(ALL_ON, bench.session(gradient_checkpointing=on)) for on in (False, True)]
    for run in runs:
        train(run, silent, None)
    one, other = map(weights, runs)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_is_told(bench: Bench) -> None:
    run = bench.run(PLAIN)
    with torch.no_grad():
        next(iter(run.mount.trained.values())).A.fill_(float("nan"))
    with pytest.raises(RequestError, match="lower `lr`"):
        train(run, silent, None)


def test_a_label_the_model_has_not_is_refused_before_training(bench: Bench) -> None:
    run = replace(bench.run(PLAIN), texts=[Example("good film", 1), Example("bad film", 7)])
    with pytest.raises(DataError):
        train(run, lambda _: pytest.fail("a step was taken"), None)


CHAT = (Message("user", "the film was good ?"),)


@pytest.mark.parametrize(
    ("texts", "plain"),
    [
        ([Example("the film was good :", completion=" positive")] * 3, False),
        ([Example("", messages=CHAT, completion="positive")] * 3, False),
        ([Example(text) for text, _ in toy_examples(8)], False),
        ([Example(text) for text, _ in toy_examples(8)], True),
    ],
)
def test_causal_models_learn_completions_chats_and_plain_text(
    texts: list[Example], plain: bool, tmp_path: Path
) -> None:
    base = llama_folder(tmp_path)
    adapter = read_adapter(random_adapter(base, tmp_path / "adapter"))
    session = session_of(base, adapter, texts=texts)
    params = RoraStep(steps=12, batch=4, lr=1e-2)
    run = Run(
        host=session.host,
        mount=student(session.host, adapter, params, 0),
        teacher=None if plain else adapter_mount(adapter),
        texts=texts,
        plain=plain,
        constraint=None,
        params=params,
        seed=0,
    )
    curve = train(run, silent, None).curve
    assert sum(point.loss for point in curve[-4:]) < sum(point.loss for point in curve[:4])
