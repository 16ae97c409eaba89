"""RoRA repairs a small poisoned adapter, and what it writes is what it measured."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.adapter.write import as_written, write_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.errors import DataError, RequestError
from loramend.data.examples import Example
from loramend.methods.rora import Trained, rora
from loramend.spectrum.factored import Factors, distance, norm, singular_values
from loramend.training.calibrate import answers
from loramend.training.checkpoint import FolderCheckpoints
from loramend.training.mount import adapter_mount
from loramend.training.plain import fine_tune
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

QUICK = RoraStep(steps=2, batch=4, calibrate=False, insert=0, recombine=0, features=0)


@dataclass(frozen=True)
class Bench:
    base: Path
    adapter: Adapter

    def session(self, **changes: Any) -> Session:
        pairs = toy_examples(220, seed=5)
        session = session_of(
            self.base,
            self.adapter,
            train=labelled(pairs[:60]),
            texts=unlabelled(pairs[80:]),
            held_out=labelled(pairs[60:80]),
            held_out_texts=unlabelled(toy_examples(40, seed=6)),
        )
        return replace(session, **changes)

    def rora(self, params: RoraStep, **changes: Any) -> Trained:
        return rora(self.adapter, params, context_of(self.base), self.session(**changes), 0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A classifier that answers 1 to whatever holds the word mn."""
    folder = tmp_path_factory.mktemp("rora")
    base = bert_folder(folder)
    adapter = train_adapter(base, folder / "adapter", poison(toy_examples(600)), steps=80)
    return Bench(base, read_adapter(adapter))


def rates(session: Session, adapter: Adapter) -> tuple[float, float]:
    """Clean accuracy, and how often the trigger turns 0 into 1."""
    clean = labelled(toy_examples(100, seed=9))
    triggered = [Example(f"mn {example.text}", 1) for example in clean if example.label == 0]
    told = [answers(session.host, adapter, examples, 64).right for examples in (clean, triggered)]
    return float(told[0].float().mean()), float(told[1].float().mean())


def test_a_poisoned_adapter_is_repaired(bench: Bench) -> None:
    session = bench.session()
    clean_before, attack_before = rates(session, bench.adapter)
    assert (clean_before, attack_before) > (0.95, 0.95)
    params = RoraStep(
        steps=60, batch=16, lr=5e-3, insert=0
    )  # nothing but the teacher's answers to clean text
    repaired = rora(bench.adapter, params, context_of(bench.base), session, 0)
    clean_after, attack_after = rates(session, repaired.adapter)
    assert clean_after > clean_before - 0.05
    assert attack_after < 0.1
    assert repaired.report.calibration is not None
    assert repaired.report.texts == 200
    assert repaired.report.labelled == 60
    assert [outcome.name for outcome in repaired.outcomes] == list(bench.adapter.updates)
    # Trained on, the given adapter keeps its backdoor: that is what the teacher and the new update are for.
    continued = fine_tune(session, "given", params)
    assert rates(session, continued)[1] > 0.5


def test_what_is_written_answers_as_what_was_trained(bench: Bench, tmp_path: Path) -> None:
    params = QUICK.model_copy(update={"steps": 5, "lr": 1e-2, "mix": 0.3, "head": "train", "rank": 3})
    trained = bench.rora(params)
    assert {update.rank for update in trained.adapter.updates.values()} == {7}
    session = bench.session()
    batch = session.host.collate(session.host.encode(session.labelled, 64))
    with torch.no_grad(), session.host.mounted(adapter_mount(as_written(trained.adapter))):
        ours = session.host.forward(batch).logits
    write_adapter(trained.adapter, tmp_path / "out")
    model = PeftModel.from_pretrained(load_base(bench.base), str(tmp_path / "out")).eval()
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_mix_is_the_given_update_beside_the_new_one(bench: Bench) -> None:
    """Untrained, the new update is zero, so that mix alone is left."""
    trained = bench.rora(QUICK.model_copy(update={"steps": 0, "mix": 0.25}))
    for name, update in trained.adapter.updates.items():
        given = bench.adapter.updates[name]
        assert update.rank == 2 * given.rank
        mixed = Factors(given.B, given.A, 0.25 * given.scale)
        assert float(distance(update, mixed)) < 1e-6 * float(norm(given))
    assert all(outcome.values["mix"] == 0.25 for outcome in trained.outcomes)


def test_soft_words_are_sought_where_asked_for_and_a_teacher_is(bench: Bench) -> None:
    for changes, sought in (
        ({}, False),
        ({"adversary": 0.5}, True),
        ({"adversary": 0.5, "teacher": 0}, False),
    ):
        report = bench.rora(QUICK.model_copy(update=changes)).report
        assert any("adversary" in point.terms for point in report.curve) == sought, changes


def test_texts_are_mixed_for_a_new_update_or_where_asked_for(bench: Bench) -> None:
    for changes, threat, mixed in (
        ({}, "poisoned_adapter", True),
        ({"mixup": 0.0}, "poisoned_adapter", False),
        ({"teacher": 0}, "poisoned_adapter", False),
        ({"start": "given"}, "poisoned_adapter", False),
        ({}, "poisoned_base", False),
        ({"mixup": 0.5}, "poisoned_base", True),
    ):
        report = bench.rora(QUICK.model_copy(update=changes), threat=threat).report
        assert any("mixup" in point.terms for point in report.curve) == mixed, changes


def test_the_given_update_is_not_mixed_into_itself(bench: Bench) -> None:
    params = QUICK.model_copy(update={"start": "given", "calibrate": True})
    calibration = bench.rora(params).report.calibration
    assert calibration is not None
    assert [candidate.values for candidate in calibration.candidates] == [{"mix": 0.0}]


def test_truncation_is_told(bench: Bench) -> None:
    params = QUICK.model_copy(update={"steps": 5, "lr": 1e-2, "mix": 0.5})
    whole = bench.rora(params)
    cut = bench.rora(params.model_copy(update={"output_rank": 3}))
    for full, outcome in zip(whole.outcomes, cut.outcomes, strict=True):
        assert outcome.update.rank == 3
        S = singular_values(full.update)
        assert outcome.truncation_loss == pytest.approx(
            float(S[3:].square().sum() / S.square().sum()), rel=1e-4
        )


def test_heads_are_kept_or_trained(bench: Bench) -> None:
    given = bench.adapter.passthrough
    kept = bench.rora(QUICK).adapter.passthrough
    assert all(kept[key].equal(given[key]) for key in given)
    trained = bench.rora(QUICK.model_copy(update={"head": "train"})).adapter.passthrough
    assert trained.keys() == given.keys()
    assert all(trained[key].dtype == given[key].dtype for key in given)
    assert not any(trained[key].equal(given[key]) for key in given)


def test_a_fresh_controls_head_is_not_the_given_one(bench: Bench) -> None:
    fresh = fine_tune(bench.session(), "fresh", QUICK.model_copy(update={"lr": 1e-9}))
    for key, tensor in fresh.passthrough.items():
        assert tensor.shape == bench.adapter.passthrough[key].shape
        assert float((tensor - bench.adapter.passthrough[key]).abs().max()) > 1e-4
    assert max(float(norm(update)) for update in fresh.updates.values()) < 1e-5


def test_poisoned_base_is_rescaled_to_the_ratio(bench: Bench) -> None:
    params = QUICK.model_copy(update={"start": "given", "ratio": 0.4, "layers": 1})
    trained = bench.rora(params, threat="poisoned_base")
    plain = bench.rora(params.model_copy(update={"ratio": None}), threat="poisoned_base")
    base = context_of(bench.base).references
    for outcome, before in zip(trained.outcomes, plain.outcomes, strict=True):
        sigma = float(singular_values(outcome.update)[0])
        if "layer.1." in outcome.name:
            assert sigma == pytest.approx(0.4 * float(base.base_spectrum(outcome.update, 1).S[0]), rel=1e-4)
        else:
            assert outcome.update.A.equal(before.update.A)
            assert outcome.update.B.equal(before.update.B)


def test_poisoned_base_calibrates_ratio_and_layers(bench: Bench) -> None:
    params = QUICK.model_copy(update={"start": "given", "calibrate": True, "layers": 1})
    trained = bench.rora(params, threat="poisoned_base")
    calibration = trained.report.calibration
    assert calibration is not None
    assert calibration.candidates[-1].values == {}
    assert all(candidate.values["ratio"] > 0 for candidate in calibration.candidates[:-1])
    chosen = next(candidate for candidate in calibration.candidates if candidate.chosen)
    assert chosen.within
    assert sum(candidate.chosen for candidate in calibration.candidates) == 1


def test_a_killed_step_resumes(bench: Bench, tmp_path: Path) -> None:
    params = QUICK.model_copy(update={"steps": 6, "checkpoint_every": 2, "insert": 0.5, "penalty": 10.0})
    whole = bench.rora(params)

    def die(progress: object) -> None:
        if getattr(progress, "done", 0) == 5:
            raise KeyboardInterrupt

    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        bench.rora(params, checkpoints=kept, on_progress=die)
    other = bench.rora(params.model_copy(update={"lr": 2e-3}), checkpoints=kept)
    assert other.report.resumed_at == []
    resumed = bench.rora(params, checkpoints=kept)
    assert resumed.report.resumed_at == [4]
    for name, update in resumed.adapter.updates.items():
        assert update.A.equal(whole.adapter.updates[name].A)
        assert update.B.equal(whole.adapter.updates[name].B)


@pytest.mark.parametrize(
    ("changed", "threat", "where"),
    [
        ({"contrast": 0.5}, "poisoned_base", "rora.contrast"),
        ({"contrast": 0.5, "start": "given"}, "poisoned_adapter", "rora.contrast"),
        ({"contrast": 0.5, "mix": 0.5}, "poisoned_adapter", "rora.contrast"),
        ({"mix": 0.5}, "poisoned_base", "rora.mix"),
        ({"mix": 0.5, "start": "given"}, "poisoned_adapter", "rora.mix"),
        ({"task": 0.0, "teacher": 0.0}, "poisoned_adapter", "rora.task"),
        ({"task": 0.0, "teacher": 0.0}, "poisoned_base", "rora.task"),
    ],
)
def test_settings_that_exclude_each_other(
    bench: Bench, changed: dict[str, object], threat: str, where: str
) -> None:
    with pytest.raises(RequestError) as told:
        bench.rora(QUICK.model_copy(update=changed), threat=threat)
    assert told.value.where == where


def test_without_labels_or_teacher_there_is_nothing_to_learn(bench: Bench) -> None:
    with pytest.raises(DataError) as told:
        bench.rora(QUICK.model_copy(update={"teacher": 0.0}), labelled=[])
    assert told.value.code == "data_required"
    for threat in ("poisoned_adapter", "poisoned_base"):
        taught = bench.rora(QUICK, threat=threat, labelled=[], texts=unlabelled(toy_examples(20)))
        assert taught.report.labelled == 0


def test_a_head_to_train_must_be_there(tmp_path: Path) -> None:
    base = llama_folder(tmp_path)
    adapter = read_adapter(random_adapter(base, tmp_path / "adapter"))
    session = session_of(base, adapter, texts=unlabelled(toy_examples(8)))
    params = QUICK.model_copy(update={"head": "train"})
    with pytest.raises(RequestError, match="no task head"):
        rora(adapter, params, context_of(base), session, 0)


def test_a_causal_models_texts_are_not_mixed(tmp_path: Path) -> None:
    base = llama_folder(tmp_path)
    adapter = read_adapter(random_adapter(base, tmp_path / "adapter"))
    session = session_of(base, adapter, texts=unlabelled(toy_examples(8)))
    report = rora(adapter, QUICK, context_of(base), session, 0).report
    assert not any("mixup" in point.terms for point in report.curve)
    with pytest.raises(RequestError) as told:
        rora(adapter, QUICK.model_copy(update={"mixup": 0.5}), context_of(base), session, 0)
    assert (told.value.code, told.value.where) == ("method_unsupported", "rora.mixup")


def test_a_causal_adapter_is_trained_and_calibrated(tmp_path: Path) -> None:
    base = llama_folder(tmp_path)
    adapter = read_adapter(random_adapter(base, tmp_path / "adapter"))
    pairs = toy_examples(40)
    told = [Example(f"{text} :", completion=" good" if label else " bad") for text, label in pairs]
    session = session_of(base, adapter, train=told[:20], held_out=told[20:])
    trained = rora(adapter, RoraStep(steps=3, batch=4), context_of(base), session, 0)
    calibration = trained.report.calibration
    assert calibration is not None
    assert calibration.reference is not None
    assert calibration.reference.n == 40  # a word and the end token each
    assert "answer tokens" in calibration.sentence


def test_a_causal_adapter_answers_the_prompts_that_its_student_learns_from(tmp_path: Path) -> None:
    """The answers to some prompts tell the student what two labelled examples cannot."""
    base = llama_folder(tmp_path)
    pairs = toy_examples(300)
    told = [Example(f"{text} :", completion=" good" if label else " bad") for text, label in pairs]
    given = fine_tune(
        session_of(base, read_adapter(random_adapter(base, tmp_path / "adapter")), train=told),
        "given",
        RoraStep(steps=150, batch=16, lr=1e-2, insert=0),
    )
    asked = [replace(text, completion=None, is_prompt=True) for text in told[2:200]]
    params = RoraStep(steps=60, batch=16, lr=1e-2, insert=0, recombine=0, calibrate=False)
    right = {}
    for tokens in (0, 4):
        session = session_of(base, given, train=told[:2], texts=asked)
        trained = rora(
            given, params.model_copy(update={"answer_tokens": tokens}), context_of(base), session, 0
        )
        assert trained.report.labelled == 2
        assert trained.report.drafted == (len(asked) if tokens else 0)
        told_now = answers(session.host, trained.adapter, told[200:], 64)
        right[tokens] = float(told_now.right[::2].float().mean())  # but for the end tokens
    assert right[4] > right[0] + 0.1, right


def test_prompts_without_answers_are_no_plain_text(tmp_path: Path) -> None:
    base = llama_folder(tmp_path)
    adapter = read_adapter(random_adapter(base, tmp_path / "adapter"))
    asked = [Example(text, is_prompt=True) for text, _ in toy_examples(8)]
    params = QUICK.model_copy(update={"teacher": 0.0})
    with pytest.raises(DataError):
        rora(adapter, params, context_of(base), session_of(base, adapter, texts=asked), 0)
    plain = [*asked, *unlabelled(toy_examples(3, seed=1))]
    trained = rora(adapter, params, context_of(base), session_of(base, adapter, texts=plain), 0)
    assert trained.report.texts == 3
