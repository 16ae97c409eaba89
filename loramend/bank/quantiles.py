"""Robust z-scores against a sample, and of each of its members against the others."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LARGEST_Z = 1000.0
_NORMAL_IQR = 1.3489795003921634
# A bank whose adapters agree to a thousandth does not make a difference of that size one.
_LEAST_SCALE = 1e-3
_TINY = 1e-12


class Spread(NamedTuple):
    """Median and scale, of each column."""

    median: Array
    scale: Array

    def z(self, values: Array) -> Array:
        """How many scales the values lie from the median, held within ±LARGEST_Z."""
        return np.clip((values - self.median) / self.scale, -LARGEST_Z, LARGEST_Z)


def spread(sample: Array) -> Spread:
    """Of a sample (n, …) over its first axis. The scale is the interquartile range over a normal one's, with
    quartiles interpolated; where the sample hardly varies, a thousandth of its median."""
    low, median, high = np.quantile(sample, (0.25, 0.5, 0.75), axis=0)
    return Spread(median, _scale(low, median, high))


def held_out(sample: Array) -> Array:
    """z of each member of a sample (n, …), n >= 2, against the other n - 1: equal to `spread` without it, and
    in O(n log n), since taking one out moves an order statistic by one place at most."""
    n = len(sample)
    order = np.argsort(sample, axis=0, kind="stable")
    ranks = np.argsort(order, axis=0, kind="stable")  # (n, …): where each member stands
    ordered = np.take_along_axis(sample, order, axis=0)

    def quantile(share: float) -> Array:
        place = (n - 2) * share
        below = int(place)

        def nth(index: int) -> Array:
            """The others' order statistic `index`, for each member taken out."""
            index = min(index, n - 2)
            found: Array = np.where(index < ranks, ordered[index], ordered[index + 1])
            return found

        first = nth(below)
        return first + (place - below) * (nth(below + 1) - first)

    low, median, high = quantile(0.25), quantile(0.5), quantile(0.75)
    return Spread(median, _scale(low, median, high)).z(sample)


def _scale(low: Array, median: Array, high: Array) -> Array:
    return np.maximum((high - low) / _NORMAL_IQR, np.maximum(_LEAST_SCALE * np.abs(median), _TINY))
