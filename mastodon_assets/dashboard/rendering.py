"""Rendering: each view once per distinct filters and version of its data, whoever asks."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar

import jinja2
import orjson
from markupsafe import Markup
from psycopg import Connection

from mastodon_assets.dashboard.database import Database
from mastodon_assets.dashboard.filters import PERIOD_NAMES, Filters, Scope, scope_at
from mastodon_assets.dashboard.intervals import percent
from mastodon_assets.dashboard.poller import Poller
from mastodon_assets.dashboard.views.base import (
    MOST_ROWS,
    Column,
    Content,
    Figure,
    Grid,
    View,
    moment,
)
from mastodon_assets.dashboard.views.registry import VIEWS
from mastodon_assets.errors import PlatformError, ServiceUnavailableError

logger = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
FIGURES = "figures"
# The reason has addresses and names, which are for the operator.
UNREACHABLE = "Database not reachable. The log of the dashboard says why."
NARROW = 326
_HALF, _WHOLE = 560, 1160
_MOST_CACHED = 600
# A query that took too long may be quick the next time, whether data changed or not.
_SECONDS_FAILED = 10.0
_MOST_CHOICES = 60
Value = TypeVar("Value")


@dataclass(frozen=True)
class Section:
    """A part of the page: its HTML, and the server-sent event that replaces it."""

    name: str
    html: str

    @property
    def event(self) -> bytes:
        """Return the event."""
        data = orjson.dumps({"name": self.name, "html": self.html})
        return b"event: section\ndata: " + data + b"\n\n"


@dataclass(frozen=True)
class Read:
    """The content of a view, the scope that was read and when."""

    content: Content
    scope: Scope
    at: datetime

    @property
    def start(self) -> datetime | None:
        """Return from when its rows count."""
        return self.content.start or self.scope.start

    @property
    def notes(self) -> Sequence[str]:
        """Return what limits the numbers."""
        if self.start is None or self.start == self.scope.start:
            return self.content.notes
        begins = moment(self.start, self.scope.now)
        return [*self.content.notes, f"Whole hours or days are counted, from {begins} on."]


@dataclass(frozen=True)
class Choices:
    """What the form offers."""

    languages: Sequence[str]
    servers: Sequence[str]
    hashtags: Sequence[str]


class ViewError(PlatformError):
    """A view failed by a mistake of the program; the log has it."""


@contextmanager
def _failing_alone(view: View) -> Iterator[None]:
    """Log a mistake of the program; the page shows the other views."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        logger.exception("the view %s failed:", view.name)
        raise ViewError("this view failed; the log of the dashboard says why") from error


@dataclass(frozen=True)
class _Entry(Generic[Value]):
    """A value of one version, computed or being computed since a moment."""

    number: int
    value: asyncio.Future[Value]
    since: float

    def is_to_be_tried_again(self) -> bool:
        """Return whether it failed some time ago: what made it fail may be over."""
        if not self.value.done() or self.value.cancelled() or self.value.exception() is None:
            return False
        return time.monotonic() - self.since > _SECONDS_FAILED


class _Cache(Generic[Value]):
    """Values by key and version; one computation at a time per key, the least used go."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()

    async def get(self, key: Hashable, number: int, make: Callable[[], Awaitable[Value]]) -> Value:
        """Return the value of that version, computed now if it is not there."""
        entry = self._entries.get(key)
        if entry is None or entry.number != number or entry.is_to_be_tried_again():
            entry = _Entry(number, asyncio.ensure_future(make()), time.monotonic())
            self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > _MOST_CACHED:
            self._entries.popitem(last=False)
        # Whoever asks may go away; the others still wait for it.
        return await asyncio.shield(entry.value)


class Renderer:
    """The page and its parts, from the database through caches."""

    def __init__(self, database: Database, poller: Poller, dagster_url: str | None) -> None:
        self._database = database
        self._poller = poller
        self._contents: _Cache[Read] = _Cache()
        self._sections: _Cache[Section] = _Cache()
        self._choices: _Cache[Choices] = _Cache()
        self._last: OrderedDict[Hashable, Read] = OrderedDict()
        self.templates = _environment(dagster_url)

    async def content(self, view: View, filters: Filters) -> Read:
        """Return the content of a view; if the database fails, the last one that was read.

        Raises:
            PlatformError: The database fails, and nothing was read before.
        """
        applied = view.applied(filters)
        key = (view.name, applied)

        async def make() -> Read:
            scope = scope_at(applied, datetime.now(UTC))
            try:
                with _failing_alone(view):
                    content = await self._database.read(
                        lambda connection: view.read(connection, scope)
                    )
            except ViewError:
                raise
            except PlatformError:
                if (last := self._last.get(key)) is None:
                    raise
                return last
            read = Read(content, scope, datetime.now(UTC))
            self._last[key] = read
            self._last.move_to_end(key)
            while len(self._last) > _MOST_CACHED:
                self._last.popitem(last=False)
            return read

        return await self._contents.get(key, self._version(view), make)

    def _version(self, view: View) -> int:
        # While the database cannot be read, each number is tried once.
        problem = self._poller.reached.problem
        return -self._poller.number if problem else self._poller.numbers[view.follows]

    async def section(self, view: View, filters: Filters) -> Section:
        """Return a view as a part of the page; if it cannot be read, the part says why."""

        async def make() -> Section:
            read = await self.content(view, filters)
            with _failing_alone(view):
                return self._section(view, filters, read)

        try:
            return await self._sections.get((view.name, filters), self._version(view), make)
        except PlatformError as error:
            return self._failed(view, error)

    def _failed(self, view: View, error: PlatformError) -> Section:
        text = UNREACHABLE if isinstance(error, ServiceUnavailableError) else str(error)
        content = Content(Grid((), ()), empty=text)
        html = self.templates.get_template("section.html").render(
            view=view,
            content=content,
            notes=[],
            charts=[],
            query="",
            ignored=[],
            table=None,
            at=None,
        )
        return Section(view.name, html)

    def _section(self, view: View, filters: Filters, read: Read) -> Section:
        content = read.content
        charts = []
        if content.draw:
            broad = _WHOLE if view.is_wide else _HALF
            charts = [
                ("narrow", Markup(content.draw(NARROW))),  # noqa: S704
                ("broad", Markup(content.draw(broad))),  # noqa: S704
            ]
        html = self.templates.get_template("section.html").render(
            view=view,
            content=content,
            notes=read.notes,
            charts=charts,
            query=view.applied(filters).query,
            ignored=view.ignored(filters),
            table=shown_table(content.shown),
            at=read.at,
        )
        return Section(view.name, html)

    async def figures(self, filters: Filters) -> Section:
        """Return the numbers at the top of the page."""

        async def make() -> Section:
            found: list[Figure] = []
            for view in VIEWS.values():
                try:
                    found += (await self.content(view, filters)).content.figures
                except PlatformError:
                    continue
            html = self.templates.get_template("figures.html").render(figures=found)
            return Section(FIGURES, html)

        return await self._sections.get((FIGURES, filters), self._poller.number, make)

    async def sections(self, filters: Filters) -> list[Section]:
        """Return all parts of the page, the numbers first."""
        views = await asyncio.gather(*(self.section(view, filters) for view in VIEWS.values()))
        return [await self.figures(filters), *views]

    async def page(self, filters: Filters) -> str:
        """Return the whole page."""
        number = self._poller.number
        sections, choices = await asyncio.gather(self.sections(filters), self.choices())
        scope = scope_at(filters, datetime.now(UTC))
        return self.templates.get_template("page.html").render(
            sections=[Markup(section.html) for section in sections],  # noqa: S704
            views=VIEWS.values(),
            filters=filters,
            fixed=scope.fixed.query,
            choices=choices,
            seen=f"{self._poller.process}.{number}",
            state=self.state(),
        )

    async def choices(self) -> Choices:
        """Return the languages, servers and hashtags that the form offers."""

        async def make() -> Choices:
            try:
                return await self._database.read(_read_choices)
            except PlatformError:
                return Choices((), (), ())

        return await self._choices.get("choices", self._poller.numbers["answers"], make)

    def state(self) -> dict[str, Any]:
        """Return what the page says about its data: `problem` or None, and `text`."""
        reached, now = self._poller.reached, datetime.now(UTC)
        if reached.problem:
            since = moment(reached.since, now)
            return {
                "problem": f"Database not reachable since {since}. What is shown is older.",
                "text": "not updated",
            }
        posts = reached.posts_changed_at
        changed = "no data yet" if posts is None else f"posts changed {_clock(posts, now)}"
        return {"problem": None, "text": f"{changed} · checked {now:%H:%M:%S} UTC"}


def _clock(at: datetime, now: datetime) -> str:
    is_today = at.astimezone(UTC).date() == now.date()
    return f"{at.astimezone(UTC):%H:%M:%S}" if is_today else moment(at, now)


def _read_choices(connection: Connection[Any]) -> Choices:
    found: dict[str, list[str]] = {}
    # Of the newest days with posts only: the whole history may be long.
    newest = "(SELECT max(hour) FROM masto.hourly_activity) - interval '30 days'"
    for column in ("lang", "instance"):
        rows = connection.execute(
            f"SELECT {column} FROM masto.hourly_activity WHERE hour > {newest}"  # noqa: S608
            f" GROUP BY 1 ORDER BY sum(toots_count) DESC, 1 LIMIT {_MOST_CHOICES}"
        ).fetchall()
        found[column] = [row[0] for row in rows]
    tags = connection.execute(
        "SELECT hashtag FROM masto.hashtag_totals ORDER BY toots_count DESC, hashtag LIMIT 30"
    ).fetchall()
    return Choices(found["lang"], found["instance"], [row[0] for row in tags])


@dataclass(frozen=True)
class ShownTable:
    """A table of the page: columns, rows of texts, and how many rows are left out."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    left_out: int


def shown_table(grid: Grid) -> ShownTable:
    """Return the rows that the page shows."""
    kinds = [column.kind for column in grid.columns]
    rows = [
        [_cell(value, kind) for value, kind in zip(row, kinds, strict=True)]
        for row in grid.rows[:MOST_ROWS]
    ]
    return ShownTable(grid.columns, rows, max(0, len(grid.rows) - MOST_ROWS))


def _cell(value: Any, kind: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if isinstance(value, date):
        return value.isoformat()
    if kind == "share":
        return percent(value)
    if kind == "decimal":
        return f"{value:,.1f}"
    if kind == "tag":
        return f"#{value}"
    return f"{value:,}" if isinstance(value, int | Decimal) else str(value)


def _environment(dagster_url: str | None) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
    )
    environment.globals |= {
        "static": _static_urls(),
        "dagster_url": dagster_url,
        "period_names": PERIOD_NAMES,
    }
    return environment


def _static_urls() -> Mapping[str, str]:
    """Return the URL of each file, which changes with its content."""
    return {
        file.name: f"/static/{file.name}?v={hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
        for file in STATIC.iterdir()
        if file.is_file()
    }
