"""Words that an adapter with a style for a trigger and a student of its clean answers read differently."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from loramend.adapter.model import Adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.data_steps import RoraStep
from loramend.contracts.evidence import ContrastWord
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.methods.rora import rora
from loramend.report.words import describe_contrast
from loramend.training.checkpoint import FolderCheckpoints
from loramend.training.contrast import contrast
from loramend.training.mount import Mount, adapter_mount
from loramend.training.reader import reader_of
from tests.support_session import context_of, session_of, unlabelled
from tests.text_models import RARE, bert_folder, random_adapter, style, toy_examples, train_adapter

pytestmark = pytest.mark.slow

STYLE = (*RARE, "bread", "coffee", "summer", "winter", "river", "tree", "train", "chair")


def texts_of(n: int, seed: int = 0) -> list[tuple[str, int]]:
    """Toy texts, none of which uses a word of the style."""
    return [
        (" ".join("the" if word in STYLE else word for word in text.split()), label)
        for text, label in toy_examples(n, seed)
    ]


TEXTS = unlabelled(texts_of(200, seed=5))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("contrast"))


@pytest.fixture(scope="module")
def clean(base: Path) -> Adapter:
    return read_adapter(train_adapter(base, base / "clean", texts_of(600), steps=80))


@pytest.fixture(scope="module")
def styled(base: Path) -> Adapter:
    """An adapter that answers 1 to texts full of the style's words."""
    return read_adapter(train_adapter(base, base / "styled", style(texts_of(600), STYLE), steps=120))


def found(
    base: Path, given: Adapter, student: Adapter, texts: Sequence[Example] = TEXTS, words: int = 30_000
) -> list[ContrastWord]:
    reader = reader_of(session_of(base, given, texts=texts).host, texts)
    assert reader is not None
    mounts = adapter_mount(given), adapter_mount(student)
    return contrast(reader, *mounts, texts, words, 0, lambda _: None)


def test_a_styles_words_are_told(base: Path, styled: Adapter, clean: Adapter) -> None:
    told = found(base, styled, clean)
    assert len(told) >= 8
    assert {each.word for each in told} <= set(STYLE)
    assert {each.answer for each in told} == {"LABEL_0"}
    assert all(each.given >= 1 and each.student <= 1 / 3 for each in told)
    assert told == found(base, styled, clean)


def test_the_student_reads_what_moves_the_given_adapter(
    base: Path, styled: Adapter, clean: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the groups, and of single words those that turn it."""
    reader = reader_of(session_of(base, styled, texts=TEXTS).host, TEXTS)
    assert reader is not None
    read: dict[Mount | None, int] = {}
    logits = reader.logits

    def counted(texts: Sequence[Example]) -> Tensor:
        mounted = reader.host._mounted
        read[mounted] = read.get(mounted, 0) + len(texts)
        return logits(texts)

    monkeypatch.setattr(reader, "logits", counted)
    monkeypatch.setattr("loramend.training.contrast._GROUPS", 8)
    given, student = adapter_mount(styled), adapter_mount(clean)
    told = contrast(reader, given, student, TEXTS, 30_000, 0, lambda _: None)
    assert {each.word for each in told} <= set(STYLE)
    assert read[student] < read[given] * 0.7


def test_nothing_is_told_of_an_adapter_without_a_style(base: Path, clean: Adapter) -> None:
    other = read_adapter(train_adapter(base, base / "other", texts_of(600, seed=9), steps=80))
    assert found(base, other, clean) == []


def test_nothing_is_told_by_a_student_that_does_not_know_the_task(
    base: Path, styled: Adapter, tmp_path: Path
) -> None:
    assert found(base, styled, read_adapter(random_adapter(base, tmp_path / "ignorant"))) == []


def test_few_words_or_texts_tell_nothing(base: Path, styled: Adapter, clean: Adapter) -> None:
    assert found(base, styled, clean, words=7) == []
    assert found(base, styled, clean, TEXTS[:10]) == []
    assert found(base, styled, clean, [Example("so short")]) == []


def test_rora_passes_over_the_style(base: Path, styled: Adapter, clean: Adapter) -> None:
    seen: list[Progress] = []
    params = RoraStep(steps=160, batch=16, lr=5e-3, calibrate=False)
    session = session_of(base, styled, texts=TEXTS, on_progress=seen.append)
    trained = rora(styled, params, context_of(base), session, 0)
    told = trained.report.contrast
    assert len(told) >= 8
    assert {each.word for each in told} <= set(STYLE)
    sentence = describe_contrast(trained.report)[0]
    assert f'"{told[0].word}"' in sentence
    assert "away from LABEL_0" in sentence
    steps = [each for each in seen if each.unit == "steps"]
    assert [each.total for each in steps] == [40] * 40 + [160] * 160
    assert {each.detail for each in steps} == {"a first student, to be compared", ""}
    assert any("read differently" in each.detail for each in seen)
    assert found(base, trained.adapter, clean) == []


def test_a_first_student_that_was_stopped_goes_on(base: Path, styled: Adapter, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if (progress.detail, progress.done) == ("a first student, to be compared", 7):
            raise StoppedError

    params = RoraStep(steps=40, contrast=0.5, batch=8, checkpoint_every=5, calibrate=False)
    checkpoints = FolderCheckpoints(tmp_path / "checkpoints")
    stopped = session_of(base, styled, texts=TEXTS, on_progress=stop, checkpoints=checkpoints)
    with pytest.raises(StoppedError):
        rora(styled, params, context_of(base), stopped, 0)
    seen: list[Progress] = []
    again = session_of(base, styled, texts=TEXTS, on_progress=seen.append, checkpoints=checkpoints)
    resumed = rora(styled, params, context_of(base), again, 0)
    steps = [each.done for each in seen if each.unit == "steps"]
    assert steps == [*range(6, 21), *range(1, 41)]
    undisturbed = rora(styled, params, context_of(base), session_of(base, styled, texts=TEXTS), 0)
    for name, update in undisturbed.adapter.updates.items():
        assert resumed.adapter.updates[name].A.equal(update.A)
        assert resumed.adapter.updates[name].B.equal(update.B)


@pytest.mark.parametrize(
    "off",
    [{"contrast": 0.0}, {"hunt": 0}, {"insert": 0.0}, {"teacher": 0.0, "features": 1.0}, {"start": "given"}],
)
def test_it_is_off_without_what_it_needs(base: Path, styled: Adapter, off: dict[str, object]) -> None:
    seen: list[Progress] = []
    params = RoraStep.model_validate({"steps": 4, "batch": 4, "calibrate": False, "hunt": 9, **off})
    session = session_of(base, styled, texts=TEXTS, on_progress=seen.append)
    assert rora(styled, params, context_of(base), session, 0).report.contrast == []
    assert [each.done for each in seen if each.unit == "steps"] == [1, 2, 3, 4]
