"""Shares with Wilson intervals."""

from dataclasses import dataclass

from mastodon_assets.reports.intervals import wilson

# Shares of fewer posts are withheld: they say little, and may give a single label away.
MIN_POSTS = 5


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
    low, high = wilson(count, total)
    return Share(count / total, low, high)


def percent(value: float) -> str:
    """Return a share as shown: one decimal below ten per cent, and none of 0."""
    if 0 < value < 0.0005:
        return "<0.1 %"
    return f"{value * 100:.1f} %" if 0 < value < 0.0995 else f"{value * 100:.0f} %"
