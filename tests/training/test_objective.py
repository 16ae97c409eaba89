"""The objective's terms against their formulas."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softmax

from loramend.reference.models import Subspace
from loramend.training.constraint import Constraint
from loramend.training.encode import IGNORED, Encoded
from loramend.training.host import Output
from loramend.training.lora_linear import Trainable
from loramend.training.objective import Pair, feature_loss, task_loss, teacher_loss
from tests.support_references import exact_subspace


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encoded(lengths: list[int], width: int, labels: Tensor) -> Encoded:
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    return Encoded(torch.zeros_like(mask), mask, labels)


def classes(labels: list[int], known: list[bool], untouched: list[bool] | None = None) -> Pair:
    batch = encoded([3] * len(labels), 3, torch.tensor(labels))
    flags = untouched or [True] * len(labels)
    return Pair(batch, batch, torch.tensor(known), torch.tensor(flags))


def test_task_loss_is_the_known_labels_sum_over_the_batch() -> None:
    logits = drawn(4, 3)
    pair = classes([0, 2, 1, IGNORED], [True, True, False, False])
    expected = cross_entropy(logits[:2], torch.tensor([0, 2]), reduction="sum") / 4
    assert task_loss(Output(logits, None), pair).item() == pytest.approx(expected.item(), rel=1e-6)


def test_task_loss_of_nothing_known_is_zero_with_a_gradient() -> None:
    logits = drawn(2, 3).requires_grad_()
    loss = task_loss(Output(logits, None), classes([0, 1], [False, False]))
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_causal_task_loss_predicts_the_next_token() -> None:
    logits, labels = drawn(2, 4, 5), torch.tensor([[IGNORED, IGNORED, 3, 1], [IGNORED, 2, 4, IGNORED]])
    batch = encoded([4, 3], 4, labels)
    pair = Pair(batch, batch, torch.tensor([True, False]), torch.tensor([True, True]))
    expected = cross_entropy(logits[0, 1:3], torch.tensor([3, 1])) / 2
    assert task_loss(Output(logits, None), pair).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("T", [1.0, 2.0])
def test_teacher_loss_is_the_divergence(T: float) -> None:
    s, t = drawn(4, 3), drawn(4, 3, seed=1)
    p, q = softmax(t / T, -1), softmax(s / T, -1)
    expected = T**2 * (p * (p / q).log()).sum(-1).mean()
    pair = classes([IGNORED] * 4, [False] * 4)
    loss = teacher_loss(Output(s, None), Output(t, None), pair, T)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_causal_teacher_is_heard_at_the_answers_however_long_the_prompts() -> None:
    """The student's prompt is two tokens longer, and its second answer was cut by one token."""
    told = drawn(2, 5, 7)
    seen = drawn(2, 7, 7, seed=1)
    plain = encoded([5, 5], 5, torch.tensor([[IGNORED, IGNORED, 1, 2, 3], [IGNORED, 4, 5, 6, 1]]))
    read = encoded(
        [7, 6], 7, torch.tensor([[IGNORED] * 4 + [1, 2, 3], [IGNORED, IGNORED, IGNORED, 4, 5, 6, IGNORED]])
    )
    pair = Pair(plain, read, torch.tensor([False, False]), torch.tensor([False, False]))
    assert teacher_loss(Output(seen, None), Output(told, None), pair, 1.0) > 0
    seen[0, 3:6], seen[1, 2:5] = told[0, 1:4], told[1, 0:3]
    assert teacher_loss(Output(seen, None), Output(told, None), pair, 1.0).item() == pytest.approx(
        0, abs=1e-6
    )


def test_a_teacher_without_answers_teaches_nothing() -> None:
    batch = encoded([3], 3, torch.full((1, 3), IGNORED))
    pair = Pair(batch, batch, torch.tensor([False]), torch.tensor([True]))
    assert teacher_loss(Output(drawn(1, 3, 5), None), Output(drawn(1, 3, 5), None), pair, 2.0).item() == 0


def test_feature_loss_reads_the_untouched_texts_tokens_alone() -> None:
    hidden_t = tuple(drawn(2, 3, 4, seed=i) for i in range(3))
    hidden_s = tuple(torch.cat([h, torch.full((2, 2, 4), 99.0)], 1) for h in hidden_t)
    for layer in hidden_s:
        layer[1] = 55.0  # words were put into the second text
    plain = encoded([2, 3], 3, torch.tensor([0, 0]))
    read = encoded([2, 5], 5, torch.tensor([0, 0]))
    pair = Pair(plain, read, torch.tensor([True, True]), torch.tensor([True, False]))
    logits = drawn(2, 2)
    assert feature_loss(Output(logits, hidden_s), Output(logits, hidden_t), pair).item() == 0
    hidden_s[2][0, 0] += 1.0
    expected = 4 / hidden_t[2][0, :2].pow(2).sum().item() / 2
    loss = feature_loss(Output(logits, hidden_s), Output(logits, hidden_t), pair)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


SHAPES = {"a": (6, 4, 2), "b": (6, 4, 2), "c": (5, 7, 3)}


def modules(*, zero_B: bool = False) -> tuple[dict[str, Trainable], dict[str, Subspace]]:
    trained, spectra = {}, {}
    for seed, (name, (out, in_, r)) in enumerate(SHAPES.items()):
        B = torch.zeros(out, r) if zero_B else drawn(out, r, seed=seed)
        trained[name] = Trainable(drawn(r, in_, seed=seed + 10), B, 2.0)
        spectra[name] = exact_subspace(drawn(out, in_, seed=seed + 20), 3)
    return trained, spectra


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_omega_is_its_formula(reduction: str) -> None:
    trained, spectra = modules()
    squares = torch.cat(
        [
            entries.double().square().flatten()
            for name, module in trained.items()
            for entries in (spectra[name].U.mT @ module.B, module.A @ spectra[name].V)
        ]
    )
    expected = squares.sum() if reduction == "sum" else squares.mean()
    omega = Constraint(trained, spectra, "sum" if reduction == "sum" else "mean")()
    assert omega.item() == pytest.approx(expected.item(), rel=1e-5)


def test_omega_has_a_gradient_where_B_is_zero() -> None:
    trained, spectra = modules(zero_B=True)
    torch.autograd.backward(Constraint(trained, spectra, "mean")())
    for module in trained.values():
        assert module.A.grad is not None
        assert module.A.grad.any()
        assert module.B.grad is not None
        assert not module.B.grad.any()


def test_omega_follows_the_factors() -> None:
    trained, spectra = modules()
    constraint = Constraint(trained, spectra, "sum")
    before = constraint().item()
    with torch.no_grad():
        for module in trained.values():
            module.A.mul_(3)
            module.B.mul_(3)
    assert math.isclose(constraint().item(), 9 * before, rel_tol=1e-5)


def test_log_softmax_is_finite_at_a_certain_teacher() -> None:
    sure = torch.tensor([[1e4, -1e4]])
    pair = classes([IGNORED], [False])
    loss = teacher_loss(Output(drawn(1, 2), None), Output(sure, None), pair, 1.0)
    assert loss.item() == pytest.approx(-log_softmax(drawn(1, 2), -1)[0, 0].item(), rel=1e-5)
