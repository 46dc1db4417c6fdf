"""Shares with Wilson intervals."""

from dataclasses import dataclass
from math import sqrt

# Shares of fewer posts are withheld: they say little, and may give a single label away.
MIN_POSTS = 5
_Z = 1.959964


@dataclass(frozen=True)
class Share:
    """A share with its 95 % Wilson interval, all from 0 to 1."""

    value: float
    low: float
    high: float


def share(count: int, total: int) -> Share | None:
    """Return `count / total` with its interval; None if `total` is less than `MIN_POSTS`."""
    if total < MIN_POSTS:
        return None
    value = count / total
    square = _Z * _Z
    centre = (value + square / (2 * total)) / (1 + square / total)
    half = _Z * sqrt(value * (1 - value) / total + square / (4 * total * total))
    half /= 1 + square / total
    return Share(value, max(0.0, centre - half), min(1.0, centre + half))
