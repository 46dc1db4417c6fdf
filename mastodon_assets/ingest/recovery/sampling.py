"""Samples of a timeline that is longer than the rate limits allow to read. Pure.

What belongs here: which moments are drawn, and what the pages at them say of the whole. Pages are
requested in `audit`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random, SystemRandom

_NORMAL_95 = 1.96
# If nothing is missing on n pages, less than 3/n of all pages have it, with 95 % confidence.
_NONE_FOUND = 3


@dataclass(frozen=True)
class Share:
    """The share of posts that the stream did not send, with its interval of 95 %."""

    estimate: float
    low: float
    high: float
    pages: int

    def __str__(self) -> str:
        """Return the share as it is logged."""
        if not self.pages:
            return "a share that is unknown, because no page could be drawn"
        return (
            f"about {self.estimate:.1%} ({self.low:.1%} to {self.high:.1%}, from {self.pages}"
            " pages drawn at random)"
        )


def drawn_moments(
    since: datetime, until: datetime, count: int, random: Random | None = None
) -> list[datetime]:
    """Return `count` random moments, the latest first: one in each of as many equal parts."""
    source = random or SystemRandom()
    part = (until - since) / count
    return [since + part * (number + source.random()) for number in reversed(range(count))]


def share_of(pages: Sequence[tuple[int, int]]) -> Share:
    """Return the share of missing posts, from pairs of posts on a page and missing ones of them.

    The interval is that of a ratio of pages, because posts are lost in bursts.
    """
    count, checked = len(pages), sum(posts for posts, _ in pages)
    if not checked:
        return Share(0, 0, 1, count)
    estimate = sum(missing for _, missing in pages) / checked
    if estimate in (0, 1) or count == 1:
        unseen = min(1.0, _NONE_FOUND / count)
        return Share(estimate, max(0.0, estimate - unseen), min(1.0, estimate + unseen), count)
    squares = sum((missing - estimate * posts) ** 2 for posts, missing in pages)
    error = math.sqrt(squares / (count * (count - 1))) / (checked / count)
    margin = _NORMAL_95 * error
    return Share(estimate, max(0.0, estimate - margin), min(1.0, estimate + margin), count)
