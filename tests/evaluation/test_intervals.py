"""Wilson's interval against its defining equation and the classical table."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramend.evaluation.intervals import Z, at_most, below, wilson


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    # Newcombe (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_it_gives_the_published_intervals(count: int, n: int, low: float, high: float) -> None:
    rate = wilson(count, n)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_its_ends_are_where_the_score_test_turns(drawn: tuple[int, int]) -> None:
    count, n = drawn
    rate = wilson(count, n)
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    for end in (rate.low, rate.high):
        if 0 < end < 1:
            assert abs(rate.rate - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), rel=1e-6)


@pytest.mark.parametrize(("count", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_no_share_has_no_interval(count: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        wilson(count, n)


def test_below_asks_for_intervals_that_do_not_touch() -> None:
    assert below(wilson(10, 100), wilson(40, 100))
    assert not below(wilson(40, 100), wilson(10, 100))
    assert not below(wilson(10, 100), wilson(12, 100))


def test_no_case_in_n_tries_still_allows_three_in_n() -> None:
    assert at_most(200) == pytest.approx(0.015)
    assert at_most(2) == 1.0
    assert 1 - (1 - at_most(200)) ** 200 == pytest.approx(0.95, abs=0.005)
