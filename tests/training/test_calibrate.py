"""Calibration takes the strongest candidate that held-out clean text allows, and says what it took."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.evidence import Calibration
from loramend.data.examples import Example
from loramend.training.calibrate import Choice, answers, calibrate, loss_is_shown
from tests.support_session import labelled, session_of, unlabelled
from tests.text_models import (
    bert_folder,
    llama_folder,
    load_base,
    random_adapter,
    toy_examples,
    train_adapter,
)

pytestmark = pytest.mark.slow

FACTORS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Bench:
    base: Path
    adapter: Adapter

    def scaled(self, factor: float) -> Adapter:
        """A lesser repair the nearer to 1: an adapter scaled to 0 knows nothing."""
        return self.adapter.with_updates(
            {
                name: update.with_factors(update.B, update.A, factor * update.scale)
                for name, update in self.adapter.updates.items()
            }
        )

    def calibrated(
        self,
        held_out: list[Example],
        texts: list[Example] | None = None,
        drop: float = 1.0,
        *,
        trusted: bool = False,
    ) -> tuple[int, Calibration]:
        return calibrate(
            session_of(self.base, self.adapter, held_out=held_out, held_out_texts=texts or []),
            [Choice(partial(self.scaled, factor), {"mix": factor}, trusted) for factor in FACTORS],
            [self.adapter],
            max_clean_drop=drop,
            max_length=64,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("calibrate")
    base = bert_folder(folder)
    return Bench(base, read_adapter(train_adapter(base, folder / "adapter", steps=60)))


def test_the_strongest_that_keeps_accuracy_is_taken(bench: Bench) -> None:
    held_out = labelled(toy_examples(200, seed=3))
    chosen, report = bench.calibrated(held_out, unlabelled(toy_examples(50, seed=4)))
    rights = [candidate.clean.count for candidate in report.candidates if candidate.clean]
    assert rights[0] < rights[2]  # the fixture's adapter has learned its task
    within = [right >= rights[2] - 2 for right in rights]  # 1 point of 200
    assert [candidate.within for candidate in report.candidates] == within
    assert chosen == within.index(True)
    assert [candidate.chosen for candidate in report.candidates].index(True) == chosen
    assert report.reference is not None
    assert report.reference.count == rights[2]
    agreed = [candidate.agreement for candidate in report.candidates]
    assert agreed[2] is not None
    assert agreed[2].rate == 1
    assert agreed[2].n == 250
    assert "within 1 point of" in report.sentence
    assert f"{rights[chosen]} of 200" in report.sentence


def test_any_drop_allowed_takes_the_strongest(bench: Bench) -> None:
    chosen, _ = bench.calibrated(labelled(toy_examples(50, seed=3)), drop=100.0)
    assert chosen == 0


def test_the_mildest_is_taken_where_none_keeps_accuracy(bench: Bench) -> None:
    session = session_of(bench.base, bench.adapter, held_out=labelled(toy_examples(100, seed=3)))
    nothing = [Choice(partial(bench.scaled, 0.0), {"mix": 0.0}, trusted=True)] * 2
    chosen, report = calibrate(session, nothing, [bench.adapter], max_clean_drop=1, max_length=64)
    assert chosen == 1
    assert "No candidate" in report.sentence


def test_a_loss_is_shown_only_beyond_chance() -> None:
    right = torch.ones(20, dtype=torch.bool)
    for wrong, shown in ((0, False), (2, False), (3, False), (4, True), (20, True)):
        after = right.clone()
        after[:wrong] = False
        assert loss_is_shown(right, after, 1.0) == shown, wrong
    many = torch.ones(4000, dtype=torch.bool)
    after = many.clone()
    after[:70] = False
    assert loss_is_shown(many, after, 1.0)
    assert not loss_is_shown(many, after, 2.0)
    after[:140:2] = True  # half of them right again
    assert not loss_is_shown(many, after, 1.0)
    assert not loss_is_shown(after, many, 0.0)


def test_a_trusted_candidate_is_taken_unless_its_loss_is_shown(bench: Bench) -> None:
    """Scaled to zero the adapter is at chance: two examples cannot show that, a hundred do."""
    wrong = [text for text in labelled(toy_examples(100, seed=3)) if text.label == 0][:1]
    right = [text for text in labelled(toy_examples(100, seed=3)) if text.label == 1][:1]
    few, report = bench.calibrated(wrong + right, trusted=True)
    assert few == 0
    assert "may be too few to show" in report.sentence
    many, report = bench.calibrated(labelled(toy_examples(100, seed=3)), trusted=True)
    assert many > 0
    assert not report.candidates[0].within


def test_without_labels_the_strongest_is_taken_and_agreement_told(bench: Bench) -> None:
    chosen, report = bench.calibrated([], unlabelled(toy_examples(50, seed=4)))
    assert chosen == 0
    assert report.reference is None
    assert all(candidate.clean is None and not candidate.within for candidate in report.candidates)
    assert [candidate.agreement.rate for candidate in report.candidates if candidate.agreement][2] == 1
    assert "could not be measured" in report.sentence


def test_answers_are_in_the_examples_order(bench: Bench) -> None:
    examples = labelled(toy_examples(70, seed=6))
    session = session_of(bench.base, bench.adapter)
    together = answers(session.host, bench.adapter, examples, 64)
    alone = [answers(session.host, bench.adapter, [example], 64) for example in examples]
    assert together.given.tolist() == [told.given.item() for told in alone]
    assert together.right.tolist() == [
        answer == example.label for answer, example in zip(together.given.tolist(), examples, strict=True)
    ]


def test_a_causal_models_answer_tokens_are_counted(tmp_path: Path) -> None:
    base = llama_folder(tmp_path)
    adapter = read_adapter(random_adapter(base, tmp_path / "adapter"))
    session = session_of(base, adapter)
    examples = [
        Example("the film was good :", completion=" positive"),
        Example("the long slow film was bad :", completion=" very negative"),
    ]
    told = answers(session.host, adapter, examples, 64)
    assert len(told.given) == 5  # positive </s>, very negative </s>
    bare = adapter.with_updates({name: u.with_factors(u.B, u.A, 0.0) for name, u in adapter.updates.items()})
    model = load_base(base).train(False)
    ids = torch.tensor([session.host.encode(examples[:1], 64)[0].ids])
    with torch.no_grad():
        expected = model(ids).logits.argmax(-1)[0, -3:-1]
    assert answers(session.host, bare, examples, 64).given[:2].equal(expected)


def test_a_rescaled_candidate_must_answer_as_the_given_adapter_does(bench: Bench) -> None:
    # Too few labels to show anything, and texts enough to see that nothing was kept.
    few, texts = labelled(toy_examples(4, seed=3)), unlabelled(toy_examples(100, seed=4))
    for trusted in (True, False):
        _, report = bench.calibrated(few, texts, drop=30.0, trusted=trusted)
        assert report.candidates[2].within
        assert report.candidates[0].agreement is not None
        assert report.candidates[0].agreement.rate < 0.7
        assert report.candidates[0].within is trusted
