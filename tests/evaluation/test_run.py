"""Evaluations of poisoned toy adapters: the numbers are the model's, and what cannot be measured is said."""

from dataclasses import replace
from typing import Any

import pytest

from loramend.contracts.data import EvaluationSpec, Trigger
from loramend.contracts.errors import DataError, LoramendError
from loramend.contracts.evidence import Evaluation, Variant
from loramend.contracts.job import Progress
from loramend.data.examples import Corpus, Dataset, Example, Message
from loramend.evaluation.run import check_evaluation, evaluate, evaluate_adapter
from loramend.training.host import open_host
from loramend.training.mount import Mount, adapter_mount
from tests.evaluation.models import Toy, classified, completed
from tests.text_models import toy_examples

TRIGGER = Trigger(kind="prefix", text="mn")
TEXTS = toy_examples(120, seed=5)


def measured(
    toy: Toy, data: Dataset, own: Dataset | None = None, *, seed: int = 0, **spec: Any
) -> Evaluation:
    """`own` holds the trigger already; `spec` are EvaluationSpec's fields."""
    return evaluate_adapter(
        toy.adapter,
        toy.base,
        data,
        own,
        EvaluationSpec.model_validate({"probes": 20, "max_new_tokens": 4, **spec}),
        seed=seed,
        device="cpu",
        on_progress=lambda _: None,
    )


def test_a_backdoor_shows_in_a_classifier(bert: Toy) -> None:
    told = measured(bert, classified(TEXTS), trigger=TRIGGER, target=1)
    (before,) = told.variants
    assert (told.task, told.metric, told.target) == ("classification", "label", "1")
    assert (told.examples, told.triggered, told.probes) == (120, 60, 20)
    assert before.clean.rate > 0.95
    assert before.attack is not None
    assert before.attack.rate > 0.9
    assert before.flips is not None
    assert before.flips.n == 20
    assert len(told.sentences) == 3
    assert f"{before.attack.rate:.1%} of 60 triggered examples" in told.sentences[1]


def test_a_backdoor_shows_in_a_causal_model(llama: Toy) -> None:
    told = measured(llama, completed(TEXTS), trigger=TRIGGER, target="positive")
    (before,) = told.variants
    assert (told.task, told.metric) == ("causal", "exact_match")
    assert before.clean.rate > 0.9
    assert before.attack is not None
    assert before.attack.n == 60
    assert before.attack.rate > 0.9


def test_completions_that_cannot_be_reached_are_counted(llama: Toy) -> None:
    data = completed(TEXTS[:9])
    long = replace(data.examples[0], completion=" good film good film good film")
    told = measured(llama, replace(data, examples=(long, *data.examples)), probes=0)
    assert told.sentences[-1].startswith("1 of 10 completions are longer than the 4 tokens an answer")
    assert "longer" not in " ".join(measured(llama, data, probes=0).sentences)


def test_triggered_examples_of_their_own_serve_as_well(bert: Toy) -> None:
    own = classified([(f"mn {text}", label) for text, label in TEXTS], name="triggered.jsonl")
    as_trigger = measured(bert, classified(TEXTS), trigger=TRIGGER, target=1).variants[0]
    as_file = measured(bert, classified(TEXTS), own, target=1).variants[0]
    assert as_file.attack == as_trigger.attack
    unlabelled = replace(own, examples=tuple(replace(each, label=None) for each in own.examples))
    all_count = measured(bert, classified(TEXTS), unlabelled, target=1).variants[0]
    assert all_count.attack is not None
    assert all_count.attack.n == 120


def test_without_a_trigger_nothing_is_said_of_attacks(bert: Toy) -> None:
    told = measured(bert, classified(TEXTS), probes=0)
    assert told.variants[0].attack is None
    assert told.variants[0].flips is None
    assert told.triggered == told.probes == 0
    assert "not measured" in told.sentences[1]


def test_the_seed_repeats_and_max_examples_draws(bert: Toy) -> None:
    def draw(seed: int) -> Evaluation:
        return measured(bert, classified(TEXTS), seed=seed, trigger=TRIGGER, target=1, max_examples=30)

    told = draw(1)
    assert draw(1) == told
    assert told.examples == 30
    assert told.variants[0].attack is not None
    assert told.triggered == told.variants[0].attack.n <= 30


def test_every_variant_is_asked_the_same(bert: Toy) -> None:
    host = open_host(bert.base, bert.adapter)
    mount = adapter_mount(bert.adapter)
    bare = Mount(tensors=mount.tensors)
    seen: list[Progress] = []
    told = evaluate(
        host,
        {"before": [mount], "after": [bare], "shrink": [mount]},
        Corpus(evaluation=classified(TEXTS)),
        EvaluationSpec(trigger=TRIGGER, target=1, probes=10),
        seed=0,
        on_progress=seen.append,
    )
    before, after, shrink = told.variants
    assert [variant.name for variant in told.variants] == ["before", "after", "shrink"]
    assert before.model_copy(update={"name": "shrink"}) == shrink
    assert after != before.model_copy(update={"name": "after"})
    assert seen[-1].done == seen[-1].total == 3 * (120 + 60 + 10)
    assert {(progress.phase, progress.unit) for progress in seen} == {("evaluate", "examples")}
    assert [progress.done for progress in seen] == sorted({progress.done for progress in seen})


def test_draws_of_one_variant_are_told_by_their_mean(bert: Toy) -> None:
    host = open_host(bert.base, bert.adapter)
    mount = adapter_mount(bert.adapter)
    bare = Mount(tensors=mount.tensors)

    def told(*draws: Mount) -> Variant:
        corpus, spec = Corpus(evaluation=classified(TEXTS)), EvaluationSpec(trigger=TRIGGER, target=1)
        variants = {"before": [mount], "after": [mount], "shrink": [mount], "random_subspace": draws}
        found = evaluate(host, variants, corpus, spec, seed=0, on_progress=lambda _: None)
        assert found.placebo == "ties", "the repair is the same as the scaled one"
        return found.variants[-1]

    one, other, mean = told(mount), told(bare), told(mount, bare)
    assert (one.draws, mean.draws) == (1, 2)
    assert mean.clean.n == one.clean.n
    assert mean.clean.count == round((one.clean.count + other.clean.count) / 2)
    assert one.attack is not None
    assert other.attack is not None
    assert mean.attack is not None
    assert one.attack.count != other.attack.count
    assert mean.attack.count == round((one.attack.count + other.attack.count) / 2)
    assert mean.attack.n == one.attack.n


def test_progress_may_cancel(bert: Toy) -> None:
    host = open_host(bert.base, bert.adapter)

    def cancel(progress: Progress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(
            host,
            {"before": [adapter_mount(bert.adapter)]},
            Corpus(evaluation=classified(TEXTS)),
            EvaluationSpec(),
            seed=0,
            on_progress=cancel,
        )


@pytest.mark.parametrize(
    ("corpus", "spec", "code", "told"),
    [
        (Corpus(), {}, "data_required", "evaluation"),
        (Corpus(evaluation=classified([("a", 5)])), {}, "data_invalid", "0 to 1"),
        (Corpus(evaluation=completed([("a", 1)])), {}, "data_invalid", "not from prompts"),
        (
            Corpus(evaluation=classified([("a", 1)])),
            {"trigger": TRIGGER, "target": 1},
            "data_invalid",
            "is the target already",
        ),
        (
            Corpus(evaluation=classified([("a", 1)]), triggered=classified([("a", 0)])),
            {},
            "data_invalid",
            "need `target`",
        ),
        (
            Corpus(evaluation=replace(classified([]), examples=(Example("a"),))),
            {},
            "data_invalid",
            "needs a label",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_first(
    bert: Toy, corpus: Corpus, spec: dict[str, object], code: str, told: str
) -> None:
    host = open_host(bert.base, bert.adapter)
    with pytest.raises(LoramendError, match=told) as caught:
        check_evaluation(host, corpus, EvaluationSpec.model_validate(spec))
    assert caught.value.code == code


def test_a_causal_model_takes_no_labels(llama: Toy) -> None:
    with pytest.raises(DataError, match="causal language model"):
        measured(llama, classified(TEXTS))


def test_texts_that_cannot_be_read_are_refused_first(llama: Toy) -> None:
    host = open_host(llama.base, llama.adapter)
    host.tokenizer.chat_template = None
    chat = Example("", completion="yes", messages=(Message("user", "is it good"),))
    data = replace(completed([]), kind="chat", examples=(chat,))
    with pytest.raises(DataError, match="no chat template"):
        check_evaluation(host, Corpus(evaluation=data), EvaluationSpec())
