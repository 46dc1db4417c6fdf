"""The days and months that a time chart shows.

What belongs here: which days a chart spans, and days summed by month. Frames in, frames out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# One post dated 1970 would turn a chart of a week into one of 56 years by month.
_OUTSIDE_SHARE = 0.01
# Among fewer posts none is an outlier, and fewer days are all readable.
_ALL_POSTS_UP_TO = 10
_ALL_DAYS_UP_TO = 31
_DAYS_UP_TO = 366


def shown_days(frame: pd.DataFrame, counts: str) -> pd.DataFrame:
    """Select the days that a chart spans and fill those without posts with zeros.

    All days, unless leaving out at most 1 % of the posts at the ends halves the chart's length.

    Args:
        frame: One row per day with posts, oldest first: `day` (date, UTC) and columns of counts.
        counts: The column with all posts of the day.

    Returns:
        One row per day from the first to the last shown, with the columns of `frame` and, equal
        in every row, `n_earlier` and `n_later`: the posts before and after the days shown.
    """
    import pandas as pd

    if frame.empty:
        return frame.assign(n_earlier=pd.Series(dtype="int64"), n_later=pd.Series(dtype="int64"))
    first, last = _span(frame["day"].tolist(), frame[counts].tolist())
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    filled = frame.set_index("day").reindex(days, fill_value=0).rename_axis("day").reset_index()
    return filled.assign(
        n_earlier=int(frame.loc[frame["day"] < first, counts].sum()),
        n_later=int(frame.loc[frame["day"] > last, counts].sum()),
    )


def by_day_or_month(frame: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return `day` and `frame` itself for at most 366 days, else `month` and its months."""
    return ("day", frame) if len(frame) <= _DAYS_UP_TO else ("month", by_month(frame))


def by_month(frame: pd.DataFrame) -> pd.DataFrame:
    """Sum the counts of a frame of days by month; `day` is then the first of the month."""
    months = frame["day"].map(lambda day: day.replace(day=1))
    return frame.groupby(months).sum(numeric_only=True).reset_index()


def _span(days: Sequence[date], posts: Sequence[int]) -> tuple[date, date]:
    """The first and the last day to show."""
    first, last = days[0], days[-1]
    total = sum(posts)
    if total < _ALL_POSTS_UP_TO or (last - first).days < _ALL_DAYS_UP_TO:
        return first, last
    start, end = _shortest_span(days, posts, total - max(1, int(total * _OUTSIDE_SHARE)))
    is_halved = 2 * (end - start + timedelta(days=1)) <= last - first + timedelta(days=1)
    return (start, end) if is_halved else (first, last)


def _shortest_span(days: Sequence[date], posts: Sequence[int], wanted: int) -> tuple[date, date]:
    """The shortest span of days with at least `wanted` posts; of equal ones the latest."""
    best = days[0], days[-1]
    start, inside = 0, 0
    for end, count in enumerate(posts):
        inside += count
        while inside - posts[start] >= wanted:
            inside -= posts[start]
            start += 1
        if inside >= wanted and days[end] - days[start] <= best[1] - best[0]:
            best = days[start], days[end]
    return best
