"""Shares with the interval that their sample allows."""

import math

from loramend.contracts.evidence import Rate

Z = 1.959963984540054
"""The normal distribution's 97.5% point."""


def wilson(count: int, n: int) -> Rate:
    """`count` of `n` with the 95% score interval of Wilson (1927), which unlike the textbook one stays within
    0..1 and does not shrink to a point at 0 or n. Raises ValueError unless 0 <= count <= n and n > 0."""
    if n < 1 or not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is not a share")
    p = count / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == n else centre + half
    return Rate(count=count, n=n, rate=p, low=low, high=high)


def below(one: Rate, other: Rate) -> bool:
    """Whether `one` lies below `other` with intervals that do not touch: a cautious test, since of two shares
    whose intervals overlap a little, one may still be the smaller."""
    return one.high < other.low


def at_most(n: int) -> float:
    """What a rate can be, at 95%, after no case in n tries: 3/n (the rule of three), at most 1."""
    return min(1.0, 3 / n)
