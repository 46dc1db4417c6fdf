"""What a view is: a question, the query that answers it, a chart and a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, LiteralString

from psycopg import Connection, sql
from psycopg.rows import tuple_row

from mastodon_assets.dashboard.filters import DEFAULT_PERIOD, Filters, Scope
from mastodon_assets.dashboard.intervals import Share, percent

# What moves a view: `posts` with each batch of the stream, `answers` with each refresh and now and
# then with posts, `sources` and `model` with their tables.
Group = Literal["posts", "answers", "sources", "model"]
Kind = Literal["time", "day", "text", "number", "share", "tag", "decimal"]
# Width in pixels to a chart.
Draw = Callable[[int], str]

# Filters are lower case; authors declare `zh-TW`.
IS_LANGUAGE: LiteralString = "lower(lang) = %(language)s"
# Rows of a table in the page; files have all.
MOST_ROWS = 62


@dataclass(frozen=True)
class Column:
    """A column of a view: its name in files, its heading, and how its cells are shown."""

    name: str
    heading: str
    kind: Kind = "number"

    @property
    def align(self) -> str:
        """Return the class of its cells in the page; empty for numbers."""
        if self.kind in ("time", "day"):
            return "when"
        return "text" if self.kind in ("text", "tag") else ""


@dataclass(frozen=True)
class Grid:
    """Columns and rows."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Figure:
    """A number at the top of the page.

    Attributes:
        name: What it counts.
        value: The number, as shown.
        detail: Its interval, its n or its time.
    """

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Content:
    """What a view shows for one scope.

    Attributes:
        grid: All rows, for files.
        table: The rows of the page's table if they are not those of `grid`.
        draw: Draws the chart; None if there is nothing to draw.
        summary: The chart in one sentence, for whoever does not see it.
        notes: What limits the numbers: n, what is withheld, which filters do not apply.
        empty: What to say instead of a chart; None if there are rows.
        figures: Numbers for the top of the page.
        warning: What a reader must see first.
        start: From when its rows count, if not from the start of the period: tables by hour or day
            count the first hour or day as a whole.
    """

    grid: Grid
    table: Grid | None = None
    draw: Draw | None = None
    summary: str = ""
    notes: Sequence[str] = ()
    empty: str | None = None
    figures: Sequence[Figure] = ()
    warning: str | None = None
    start: datetime | None = None

    @property
    def shown(self) -> Grid:
        """Return the table of the page."""
        return self.table or self.grid


@dataclass(frozen=True)
class View:
    """One view of the page.

    Attributes:
        name: Its name in URLs.
        title: Its heading.
        question: What it answers, in one sentence.
        source: The tables it reads, for notes and files.
        read: Reads it, in a read-only transaction.
        follows: What moves it.
        applies: The filters that it applies, apart from time.
        is_wide: Whether it takes the whole width of the page.
        has_period: Whether it applies the period.
    """

    name: str
    title: str
    question: str
    source: str
    read: Callable[[Connection[Any], Scope], Content]
    follows: Group
    applies: Sequence[str] = ()
    is_wide: bool = False
    has_period: bool = True

    def applied(self, filters: Filters) -> Filters:
        """Return the filters that change this view; the others have their defaults."""
        for name in ("language", "hashtag", "server"):
            if name not in self.applies:
                filters = filters.without(name)
        if not self.has_period:
            filters = replace(filters, period=DEFAULT_PERIOD, first_day=None, last_day=None)
        return filters

    def ignored(self, filters: Filters) -> list[str]:
        """Return the names of the filters that are set and do not change this view."""
        chosen = ("language", "hashtag", "server")
        return [name for name in chosen if getattr(filters, name) and name not in self.applies]


@dataclass
class Condition:
    """A WHERE clause under construction, with its parameters."""

    parts: list[sql.Composable] = field(default_factory=lambda: [sql.SQL("true")])
    values: dict[str, object] = field(default_factory=dict)

    def add(self, clause: LiteralString, **values: object) -> "Condition":
        """Add a clause unless one of its values is None."""
        if all(value is not None for value in values.values()):
            self.parts.append(sql.SQL(clause))
            self.values |= values
        return self

    @property
    def clause(self) -> sql.Composed:
        """Return the clause."""
        return sql.SQL(" AND ").join(self.parts)


def by_hour(scope: Scope) -> Condition:
    """Return the condition on an hourly table: hours, language, server."""
    condition = Condition().add("hour < %(end)s", end=scope.end)
    condition.add("hour >= %(start)s", start=scope.first_hour)
    return _with_language_and_server(condition, scope)


def by_day(scope: Scope) -> Condition:
    """Return the condition on a table by day: days, language, server."""
    return _with_language_and_server(days(scope), scope)


def days(scope: Scope) -> Condition:
    """Return the condition on days alone."""
    condition = Condition().add("day <= %(last)s", last=scope.last_day)
    return condition.add("day >= %(first)s", first=scope.first_day)


def _with_language_and_server(condition: Condition, scope: Scope) -> Condition:
    condition.add(IS_LANGUAGE, language=scope.filters.language)
    return condition.add("instance = %(server)s", server=scope.filters.server)


def fetch(
    connection: Connection[Any], statement: LiteralString, condition: Condition, **values: object
) -> list[tuple[Any, ...]]:
    """Run a statement with `{where}` replaced by the condition; return its rows."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(sql.SQL(statement).format(where=condition.clause), condition.values | values)
        return cursor.fetchall()


def nothing_yet(connection: Connection[Any], columns: Sequence[Column], scope: Scope) -> Content:
    """Return the content of a view without rows: no data at all, or none for these filters."""
    last = newest_post(connection)
    if last is None:
        empty = "No data yet: no post has reached the tables."
    elif scope.start and last < scope.start and scope.filters.first_day is None:
        empty = f"Nothing since {moment(last, scope.now)}."
    else:
        empty = "No posts match these filters."
    return Content(Grid(columns, []), empty=empty)


def newest_post(connection: Connection[Any]) -> datetime | None:
    """Return the start of the newest minute with posts; None if there are no posts."""
    row = connection.execute("SELECT max(window_start) FROM masto.toot_metrics_windowed").fetchone()
    found: datetime | None = row[0] if row else None
    return found


def moment(at: datetime, now: datetime) -> str:
    """Return a time in words: without the day if it is today's."""
    at = at.astimezone(UTC)
    is_today = at.date() == now.astimezone(UTC).date()
    return f"{at:%H:%M} UTC" if is_today else f"{at:%d %b %Y, %H:%M} UTC"


def with_interval(share: Share | None) -> str:
    """Return a share with its interval as shown."""
    if share is None:
        return "withheld"
    return f"{percent(share.value)} ({share.low * 100:.0f}–{share.high * 100:.0f} %)"
