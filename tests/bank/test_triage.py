"""An adapter beside a bank: what is compared, what stands out, and that words go no further."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramend.bank.triage import FEWEST, mismatch, statistics_of, triage, without_bank
from loramend.contracts.bank import BankAdapter, ModuleStatistics
from loramend.contracts.triage import Triage
from tests.bank.adapters import described, many, opened

FORBIDDEN = ("backdoored", "malicious", "is clean", "is safe", "infected")


def with_statistics(adapter: BankAdapter, index: int, **values: float | None) -> BankAdapter:
    modules = list(adapter.modules)
    changed = modules[index].statistics.model_copy(update=values)
    modules[index] = modules[index].model_copy(update={"statistics": changed})
    return adapter.model_copy(update={"modules": tuple(modules)})


def words(found: Triage) -> str:
    told = " ".join(found.sentences)
    assert not any(word in told for word in FORBIDDEN)
    return told


def test_an_adapter_like_the_others_is_within_and_that_says_little() -> None:
    found = triage(described("x", seed=99), opened(many(30)))
    assert found.verdict == "within_the_bank"
    assert found.bank is not None
    assert (found.bank.adapters, found.bank.comparable, found.bank.same_base) == (30, 30, 30)
    told = words(found)
    assert "says nothing of what it does" in told
    assert "nothing rarer than one in 31" in told
    assert "all of them name the same base model" in told


def test_an_adapter_unlike_the_others_is_called_that_and_no_more() -> None:
    found = triage(described("x", seed=99, factor=3.0), opened(many(30)))
    assert found.verdict == "unlike_the_bank"
    by_name = {each.name: each for each in found.statistics}
    assert by_name["norm"].z is not None
    assert by_name["norm"].z > 3.5
    assert by_name["norm"].quantile == 1.0
    assert by_name["kurtosis"].z is not None
    assert abs(by_name["kurtosis"].z) < 3.5
    assert [outlier.module for outlier in found.standing_out]
    assert {outlier.statistic for outlier in found.standing_out} <= {"sigma_1", "norm"}
    told = words(found)
    assert "unlike the bank: " in told
    assert "Another task, recipe or amount of training does that" in told


def test_values_are_those_of_the_whole_adapter() -> None:
    adapter = described("x", seed=5)
    found = {each.name: each.value for each in triage(adapter, opened(many(6))).statistics}
    each = [module.statistics for module in adapter.modules]
    norms = np.array([one.norm for one in each])
    assert found["norm"] == pytest.approx(float(np.linalg.norm(norms)))
    assert found["norm_spread"] == pytest.approx(float((norms / math.sqrt(32 * 16)).std()))
    for name in ("sigma_1", "concentration", "spectral_entropy", "kurtosis", "top_rows", "row_sparsity"):
        assert found[name] == pytest.approx(np.mean([getattr(one, name) for one in each]))


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(FEWEST + 1, 9))
def test_false_positives_are_what_the_rule_does_to_the_banks_own(seed: int, count: int) -> None:
    """Each of them beside the others, by the same function, and not an estimate."""
    bank = [
        described(f"a{index}", seed=seed + index, factor=1 + 0.3 * (index % 3 == 0)) for index in range(count)
    ]
    found = triage(described("x", seed=seed + 99), opened(bank))
    alone = [triage(each, opened(bank)) for each in bank]
    assert all(each.bank is not None and each.bank.holds_it for each in alone)
    assert found.false_positives is not None
    assert found.false_positives.count == sum(each.verdict == "unlike_the_bank" for each in alone)
    assert found.false_positives.n == count


@pytest.mark.slow
def test_an_adapter_like_the_banks_is_seldom_called_unlike_it() -> None:
    """At most 2 in n + 1 of them, whatever n: here 2 in 9, counted over 150 banks."""
    called = 0
    for round_ in range(150):
        bank = [described(f"a{index}", seed=1000 * round_ + index) for index in range(8)]
        found = triage(described("x", seed=1000 * round_ + 99), opened(bank))
        called += found.verdict == "unlike_the_bank"
    assert called / 150 < 2 / 9 + 3 * math.sqrt(2 / 9 * 7 / 9 / 150)


def test_what_the_banks_own_do_as_well_makes_no_adapter_unlike_it() -> None:
    """One odd adapter in the bank: another of its kind stands out, and is no rarity."""
    bank = [*many(10), described("odd", seed=50, factor=4.0)]
    found = triage(described("x", seed=51, factor=3.0), opened(bank))
    assert any(each.z is not None and each.z > 3.5 for each in found.statistics)
    assert found.verdict == "within_the_bank"
    assert "no more than in adapters of the bank: " in words(found)


def test_more_modules_that_stand_out_than_any_other_has() -> None:
    """Up in one and down in the next, so that the mean over modules does not show it."""
    odd = described("x", seed=99, modules=8)
    for index in range(8):
        odd = with_statistics(odd, index, kurtosis=4.0 + (-1) ** index * 1.6)
    bank = [described(f"a{index}", seed=index, modules=8) for index in range(30)]
    found = triage(odd, opened(bank))
    assert found.reasons == ["modules"]
    assert found.verdict == "unlike_the_bank"
    assert "more of its modules stand out" in words(found)
    assert len(found.standing_out) == 8 > max(found.held_out_modules)


def test_only_the_same_modules_shapes_and_ranks_are_compared() -> None:
    adapter = described("x")
    assert mismatch(adapter, described("y", base="org/other")) is None
    others = [
        described("modules", modules=4),
        described("shapes", shape=(16, 32)),
        described("rank", rank=8),
    ]
    assert [mismatch(adapter, other) for other in others] == [
        "other_modules",
        "other_shapes",
        "other_ranks",
    ]
    found = triage(adapter, opened([*many(FEWEST - 1), *others]))
    assert found.verdict == "no_comparison"
    assert found.bank is not None
    assert found.bank.comparable == FEWEST - 1
    assert all(each.value is not None and each.z is None for each in found.statistics)
    told = words(found)
    assert "No comparison was possible" in told
    assert "1 with other modules, 1 with other shapes, 1 with other ranks" in told
    assert triage(adapter, opened([*many(FEWEST), *others])).verdict != "no_comparison"


def test_the_order_of_modules_does_not_matter() -> None:
    adapter, bank = described("x", seed=7), many(8)
    turned = [each.model_copy(update={"modules": each.modules[::-1]}) for each in bank]
    assert triage(adapter, opened(turned)) == triage(adapter, opened(bank))


def test_without_a_bank_nothing_is_compared() -> None:
    found = without_bank()
    assert (found.verdict, found.bank, found.statistics) == ("no_comparison", None, [])
    assert "No comparison with other adapters was possible" in words(found)


def test_an_update_that_is_zero_stands_out_by_its_norm() -> None:
    nothing = dict.fromkeys(list(ModuleStatistics.model_fields)[2:])
    odd = with_statistics(described("x", seed=50), 1, sigma_1=0.0, norm=0.0, **nothing)
    found = triage(odd, opened(many(20)))
    outlier = next(each for each in found.standing_out if each.module == "layers.1.q_proj")
    assert outlier.statistic in ("sigma_1", "norm")
    bank = many(20)
    bank[3] = with_statistics(bank[3], 1, sigma_1=0.0, norm=0.0, **nothing)
    assert triage(described("y", seed=60), opened(bank)).verdict == "within_the_bank"


def test_a_bank_of_equal_adapters_and_the_largest_numbers() -> None:
    same = [described(f"a{index}", seed=1) for index in range(6)]
    assert triage(described("x", seed=1), opened(same)).verdict == "within_the_bank"
    huge = [with_statistics(each, 0, norm=1e100, sigma_1=1e100, kurtosis=1e100) for each in same]
    found = triage(described("x", seed=1), opened(huge))
    assert all(each.z is not None and math.isfinite(each.z) for each in found.statistics)


def test_how_a_banks_statistics_are_distributed() -> None:
    bank = many(11)
    told = {each.name: each for each in statistics_of(bank)}
    values = sorted(float(np.mean([one.statistics.kurtosis for one in each.modules])) for each in bank)
    assert (told["kurtosis"].low, told["kurtosis"].median, told["kurtosis"].high) == pytest.approx(
        (values[0], values[5], values[-1])
    )
    assert told["kurtosis"].z is None
