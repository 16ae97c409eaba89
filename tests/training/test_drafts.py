"""Answers to prompts that came without: the adapter's own, as it would generate them."""

from pathlib import Path

import pytest

from loramend.adapter.read import read_adapter
from loramend.contracts.job import Progress
from loramend.data.examples import Example, Message
from loramend.evaluation.measure import answers
from loramend.training.drafts import with_drafts
from loramend.training.host import Host, open_host
from loramend.training.mount import Mount, adapter_mount
from tests.text_models import bert_folder, llama_folder, random_adapter, toy_examples

PROMPTS = [Example(text, is_prompt=True) for text, _ in toy_examples(70)]
CHAT = Example("", messages=(Message("user", "the film"),))


def opened(base: Path, folder: Path) -> tuple[Host, Mount]:
    adapter = read_adapter(random_adapter(base, folder / "adapter"))
    return open_host(base, adapter), adapter_mount(adapter)


def drafted(host: Host, mount: Mount, texts: list[Example], tokens: int = 5) -> list[Example]:
    return with_drafts(host, mount, texts, tokens=tokens, max_length=64, on_progress=lambda _: None)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, Mount]:
    folder = tmp_path_factory.mktemp("drafts")
    return opened(llama_folder(folder), folder)


def test_prompts_get_the_adapters_answers_and_others_stay(causal: tuple[Host, Mount]) -> None:
    host, mount = causal
    answered = Example("the film", completion=" good")
    texts = [PROMPTS[0], Example("plain text"), answered, CHAT, *PROMPTS[1:]]
    found = drafted(host, mount, texts)
    assert found[1:3] == texts[1:3]
    with host.mounted(mount):
        told = answers(host, texts, max_new_tokens=5, on_answers=lambda _: None)
    for text, answer, draft in zip(texts, told, found, strict=True):
        if text.asks:
            assert (draft.completion or "").strip() == str(answer).strip()
            assert draft.drafted
            assert not draft.labelled, "nobody knows that it is right"
            assert (draft.text, draft.messages) == (text.text, text.messages)
    (item,) = host.encode(found[:1], 64)
    (prompt,) = host.encode(texts[:1], 64)
    assert item.ids[: len(prompt.ids)] == prompt.ids
    assert item.answer == len(prompt.ids)


def test_none_are_written_where_none_are_asked_for(causal: tuple[Host, Mount]) -> None:
    assert drafted(*causal, PROMPTS[:3], tokens=0) == PROMPTS[:3]


def test_a_classifier_has_no_prompts(tmp_path: Path) -> None:
    host, mount = opened(bert_folder(tmp_path), tmp_path)
    assert drafted(host, mount, PROMPTS[:3]) == PROMPTS[:3]


def test_progress_may_stop_it(causal: tuple[Host, Mount]) -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            raise KeyboardInterrupt

    host, mount = causal
    with pytest.raises(KeyboardInterrupt):
        with_drafts(host, mount, PROMPTS, tokens=2, max_length=64, on_progress=stop)
    assert [(progress.done, progress.total) for progress in seen] == [(0, 70), (64, 70)]
