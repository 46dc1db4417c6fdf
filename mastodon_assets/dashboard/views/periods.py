"""Periods of equal length on a time axis: which length a view uses, and all its periods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from mastodon_assets.dashboard.charts.time_series import Axis

# More columns than this are too thin on a phone.
_MOST_PERIODS = 100
_MOST_SHOWN = 400
# A Monday.
_ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Grain:
    """A length of periods: `name` in words, PostgreSQL's `interval`, and how a start is shown."""

    name: str
    interval: str
    length: timedelta
    label: str
    whole: str


_GRAINS = (
    Grain("minute", "1 minute", timedelta(minutes=1), "%H:%M", "%d %b, %H:%M"),
    Grain("5 minutes", "5 minutes", timedelta(minutes=5), "%H:%M", "%d %b, %H:%M"),
    Grain("hour", "1 hour", timedelta(hours=1), "%H:%M", "%a %d %b, %H:%M"),
    Grain("6 hours", "6 hours", timedelta(hours=6), "%d %b", "%a %d %b, %H:%M"),
    Grain("day", "1 day", timedelta(days=1), "%d %b", "%a %d %b %Y"),
    Grain("week", "7 days", timedelta(days=7), "%d %b", "week of %d %b %Y"),
    Grain("4 weeks", "28 days", timedelta(days=28), "%b %Y", "4 weeks from %d %b %Y"),
)


def grain_for(start: datetime, end: datetime, *, shortest: str = "minute") -> Grain:
    """Return the shortest length, but not below `shortest`, that makes few enough periods."""
    names = [grain.name for grain in _GRAINS]
    usable = _GRAINS[names.index(shortest) :]
    return next(
        (grain for grain in usable if (end - start) / grain.length <= _MOST_PERIODS), usable[-1]
    )


def axis_of(grain: Grain, start: datetime, end: datetime) -> Axis:
    """Return all periods that touch [start, end), at most the newest 400."""
    last = end - timedelta(microseconds=1)
    first = max(floor(grain, start), floor(grain, last) - grain.length * (_MOST_SHOWN - 1))
    starts = []
    while first <= last:
        starts.append(first)
        first += grain.length
    labels = [_label(grain, each, starts) for each in starts]
    # A month of several weeks is named once.
    before = ["", *labels]
    labels = [label if label != last else "" for label, last in zip(labels, before, strict=False)]
    return Axis(starts, labels, [f"{each:{grain.whole}}" for each in starts])


def floor(grain: Grain, at: datetime) -> datetime:
    """Return the start of the period that `at` is in, as PostgreSQL's `date_bin` does."""
    at = at.astimezone(UTC)
    return at - (at - _ORIGIN) % grain.length


def spread(axis: Axis, counts: Mapping[datetime, int]) -> list[int]:
    """Return the count per period of the axis, 0 if there is none."""
    return [counts.get(start, 0) for start in axis.starts]


def midnight(day: date) -> datetime:
    """Return the beginning of a day, UTC."""
    return datetime.combine(day, time(), UTC)


def _label(grain: Grain, at: datetime, starts: Sequence[datetime]) -> str:
    is_part_of_day = grain.length < timedelta(days=1)
    if is_part_of_day and starts[-1] - starts[0] >= timedelta(days=2):
        return f"{at:%d %b}" if at.hour == 0 else ""
    if grain.length >= timedelta(days=1) and starts[-1] - starts[0] > timedelta(days=300):
        return f"{at:%b %Y}"
    return f"{at:{grain.label}}"
