"""Robust z-scores, and each member of a sample against the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramend.bank.quantiles import LARGEST_Z, held_out, spread


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.0, -5.0, 1e6]) | st.floats(-10, 10), st.floats(0, 1)),
        min_size=2,
        max_size=12,
    )
)
def test_each_member_is_set_beside_the_others_alone(sample: list[tuple[float, float]]) -> None:
    table = np.array(sample)
    expected = [spread(np.delete(table, index, axis=0)).z(table[index]) for index in range(len(table))]
    np.testing.assert_allclose(held_out(table), expected, rtol=1e-9, atol=1e-9)


def test_the_scale_is_a_normal_samples_standard_deviation() -> None:
    sample = np.random.default_rng(0).normal(3.0, 2.0, size=(20_000, 1))
    around = spread(sample)
    assert float(around.median[0]) == pytest.approx(3.0, abs=0.06)
    assert float(around.scale[0]) == pytest.approx(2.0, rel=0.03)


def test_a_sample_without_spread() -> None:
    """A thousandth of the median counts as one scale, and z stays finite beside zeros."""
    around = spread(np.full((6, 1), 2.0))
    assert around.z(np.array([2.0])) == [0.0]
    assert around.z(np.array([2.001])) == pytest.approx([0.5])
    assert spread(np.zeros((6, 1))).z(np.array([0.1])) == [LARGEST_Z]
