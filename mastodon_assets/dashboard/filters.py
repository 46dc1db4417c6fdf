"""The filters of a view: GET parameters in, a checked and hashable value out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import urlencode

from mastodon_assets.contract.identity import domain_form, tag_form
from mastodon_assets.errors import PlatformError

# What the form offers; the value is None for all data.
PERIODS: Mapping[str, timedelta | None] = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "365d": timedelta(days=365),
    "all": None,
}
PERIOD_NAMES: Mapping[str, str] = {
    "1h": "last hour",
    "6h": "last 6 hours",
    "24h": "last 24 hours",
    "7d": "last 7 days",
    "30d": "last 30 days",
    "365d": "last 365 days",
    "all": "all data",
}
DEFAULT_PERIOD = "7d"
# Live counts per minute are shown up to this length; hourly tables serve longer ones.
_LONGEST_BY_MINUTE = timedelta(hours=6)
_WHOLE_DAYS_FROM = timedelta(days=7)
_LANGUAGE = re.compile(r"\A[a-z]{2,8}([-_][a-z0-9]{1,8})*\Z")
_LONGEST_TEXT = 200


class FilterError(PlatformError):
    """A GET parameter has a value that is not allowed."""


@dataclass(frozen=True)
class Filters:
    """What a view shows: a period, and at most one language, hashtag and server.

    Attributes:
        period: A key of `PERIODS`; unused if `first_day` is set.
        first_day: First day, UTC; None for a period that ends now.
        last_day: Last day, UTC, inclusive; set together with `first_day`.
        language: Language as declared, in lower case; None for all.
        hashtag: In its one form; None for all.
        server: Domain in its one form; None for all.
    """

    period: str = DEFAULT_PERIOD
    first_day: date | None = None
    last_day: date | None = None
    language: str | None = None
    hashtag: str | None = None
    server: str | None = None

    @property
    def query(self) -> str:
        """Return the GET parameters that give these filters; empty for the default."""
        pairs: dict[str, str] = {}
        if self.first_day and self.last_day:
            pairs = {"from": self.first_day.isoformat(), "to": self.last_day.isoformat()}
        elif self.period != DEFAULT_PERIOD:
            pairs = {"period": self.period}
        chosen = {"language": self.language, "hashtag": self.hashtag, "server": self.server}
        return urlencode(pairs | {name: value for name, value in chosen.items() if value})

    def without(self, name: str) -> "Filters":
        """Return the filters without one of `language`, `hashtag` and `server`."""
        return replace(self, **{name: None})  # type: ignore[arg-type]


def parse_filters(parameters: Mapping[str, str]) -> Filters:
    """Return the filters of GET parameters; empty values count as absent, unknown names too.

    Raises:
        FilterError: A value is not allowed.
    """
    given = {name: value.strip() for name, value in parameters.items()}
    period = given.get("period") or DEFAULT_PERIOD
    if period not in PERIODS:
        raise FilterError(f"period={period[:40]}: allowed: {', '.join(PERIODS)}")
    first, last = (_day(name, given.get(name)) for name in ("from", "to"))
    if (first is None) != (last is None):
        raise FilterError("from and to: give both, or neither")
    if first and last and first > last:
        raise FilterError(f"from={first}: allowed: at most to={last}")
    language = (given.get("language") or "").lower()
    if language and not _LANGUAGE.match(language):
        raise FilterError(f"language={language[:40]}: allowed: a code such as en, or und for none")
    return Filters(
        period=DEFAULT_PERIOD if first else period,
        first_day=first,
        last_day=last,
        language=language or None,
        hashtag=tag_form(_text("hashtag", given.get("hashtag"))) or None,
        server=domain_form(_text("server", given.get("server"))) or None,
    )


def _day(name: str, text: str | None) -> date | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or not 1970 <= day.year <= 9998:
        raise FilterError(f"{name}={text[:40]}: allowed: a day such as 2026-11-20")
    return day


def _text(name: str, text: str | None) -> str:
    text = text or ""
    if len(text) > _LONGEST_TEXT or "\0" in text:
        raise FilterError(f"{name}: allowed: at most {_LONGEST_TEXT} characters of text")
    return text


@dataclass(frozen=True)
class Scope:
    """Filters at a moment: `start` inclusive (None: from the first post), `end` exclusive, UTC."""

    filters: Filters
    now: datetime
    start: datetime | None
    end: datetime

    @property
    def is_by_minute(self) -> bool:
        """Return whether counts per minute are shown: a short period up to now, one table."""
        filters = self.filters
        return (
            filters.first_day is None
            and self.start is not None
            and self.now - self.start <= _LONGEST_BY_MINUTE
            and not (filters.hashtag or filters.server)
        )

    @property
    def first_hour(self) -> datetime | None:
        """Return the start of the first hour that is shown."""
        return self.start and self.start.replace(minute=0, second=0, microsecond=0)

    @property
    def first_day(self) -> date | None:
        """Return the first day that is shown."""
        return self.start and self.start.date()

    @property
    def first_midnight(self) -> datetime | None:
        """Return the start of the first day that is shown."""
        return self.start and datetime.combine(self.start.date(), time(), UTC)

    @property
    def last_day(self) -> date:
        """Return the last day that is shown."""
        return (self.end - timedelta(microseconds=1)).date()

    @property
    def text(self) -> str:
        """Return the period in words."""
        if self.filters.first_day:
            return f"{self.filters.first_day} to {self.filters.last_day}"
        return PERIOD_NAMES[self.filters.period]

    @property
    def fixed(self) -> Filters:
        """Return the same filters with days instead of a period that moves with the clock."""
        first = self.first_day
        return replace(
            self.filters,
            period=self.filters.period if first is None else DEFAULT_PERIOD,
            first_day=first,
            last_day=None if first is None else self.last_day,
        )


def scope_at(filters: Filters, now: datetime) -> Scope:
    """Return the filters with the times that they mean at `now`."""
    if filters.first_day and filters.last_day:
        start = datetime.combine(filters.first_day, time(), UTC)
        end = datetime.combine(filters.last_day + timedelta(days=1), time(), UTC)
        return Scope(filters, now, start, end)
    since = _start(PERIODS[filters.period], now)
    # Clocks differ a little; posts of this minute are shown.
    end = now + timedelta(minutes=1)
    return Scope(filters, now, since, end)


def _start(length: timedelta | None, now: datetime) -> datetime | None:
    if length is None:
        return None
    # Whole days, so that tables by hour and by day show the same posts.
    is_long = length >= _WHOLE_DAYS_FROM
    return datetime.combine((now - length).date(), time(), UTC) if is_long else now - length
