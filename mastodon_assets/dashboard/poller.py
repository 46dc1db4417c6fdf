"""The poller: which data have changed. One per process, however many people watch.

What belongs here: noticing changes. A view renders again only if the number of its group rose.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from mastodon_assets.dashboard.database import Database
from mastodon_assets.dashboard.views.base import Group
from mastodon_assets.errors import PlatformError

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# The least time between two updates of a group because of new posts.
_SECONDS_BETWEEN: Mapping[Group, float] = {"posts": 2.0, "answers": 30.0}
_GROUPS: tuple[Group, ...] = ("posts", "answers", "sources", "model")

_STATE = """
SELECT coalesce((SELECT version FROM masto.data_versions WHERE dataset = 'toots_raw'), 0) AS posts,
       (SELECT changed_at FROM masto.data_versions
         WHERE dataset = 'toots_raw' AND version > 0) AS posts_changed_at,
       (SELECT max(updated_at) FROM masto.asset_progress) AS answers,
       (SELECT md5(string_agg(concat_ws(' ', instance, source, state, detail,
                   date_trunc('minute', last_post_at), told_at < now() - interval '1 minute'),
                   ',' ORDER BY instance, source)) FROM masto.ingest_sources) AS sources,
       (SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE status = 'open'),
                   max(started_at), max(ended_at)) FROM masto.stream_gaps) AS gaps,
       (SELECT count(*) FROM masto.suspicious_sources WHERE accepted_until IS NULL) AS suspicious,
       (SELECT concat_ws(' ', count(*), max(opened_at)) FROM masto.alerts
         WHERE opened_at IS NOT NULL AND closed_at IS NULL) AS incidents,
       (SELECT md5(string_agg(concat_ws(' ', version, status, promoted_at,
                   CASE status WHEN 'champion' THEN metrics -> 'own_posts' ->> 'evaluated_at' END),
                   ',' ORDER BY version))
          FROM masto.sentiment_models) AS model"""


@dataclass(frozen=True)
class DataState:
    """What decides whether anything changed."""

    posts: int
    posts_changed_at: datetime | None
    answers: datetime | None
    sources: str | None
    gaps: str
    suspicious: int
    incidents: str
    model: str | None


@dataclass(frozen=True)
class Reached:
    """What the page says about its data.

    Attributes:
        problem: Why the database cannot be read, in one line; None if it can.
        since: Since when that is so, or when it was read last.
        posts_changed_at: When the posts changed last.
    """

    problem: str | None
    since: datetime
    posts_changed_at: datetime | None


class Poller:
    """Reads once per second what decides, and wakes those who wait for changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._state: DataState | None = None
        self._moved_at: dict[Group, float] = dict.fromkeys(_GROUPS, float("-inf"))
        self._shown_posts: dict[Group, int | None] = dict.fromkeys(_SECONDS_BETWEEN)
        self._minute = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # So that nobody takes the numbers of another process for ours.
        self.process = secrets.token_hex(4)
        self.number = 0
        self.numbers: Mapping[Group, int] = dict.fromkeys(_GROUPS, 0)
        self.reached = Reached(None, datetime.now(UTC), None)
        self.is_closed = False

    async def start(self) -> None:
        """Read the first state, and go on in a task."""
        await self.check()
        self._task = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """End the task and whoever waits."""
        self.close()
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def close(self) -> None:
        """Let all who wait return."""
        self.is_closed = True
        self._changed.set()

    async def wait(self, seen: int, seconds: float) -> bool:
        """Wait until the number exceeds `seen`; return whether it does."""
        if self.number <= seen and not self.is_closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)
        return self.number > seen

    async def check(self) -> None:
        """Read the state once and raise the numbers of the groups that changed."""
        try:
            state = await self._database.read(_read_state)
        except PlatformError as error:
            self._note_problem(str(error))
            return
        except Exception as error:
            if self.reached.problem is None:
                logger.exception("the state of the data cannot be read:")
            self._note_problem(type(error).__name__)
            return
        was_unreachable = self.reached.problem is not None
        self.reached = Reached(None, datetime.now(UTC), state.posts_changed_at)
        changed = set(_GROUPS) if was_unreachable else self._changes(state)
        if was_unreachable:
            logger.info("the database answers again")
        self._state = state
        for group in self._shown_posts.keys() & changed:
            self._shown_posts[group] = state.posts
        self._raise(changed)

    def _changes(self, state: DataState) -> set[Group]:
        before = self._state
        if before is None:
            return set(_GROUPS)
        now, minute = time.monotonic(), int(time.time() // 60)
        changed: set[Group] = set()
        if minute != self._minute:
            # What a period of an hour shows moves with the clock.
            self._minute = minute
            changed.add("posts")
        for group, seconds in _SECONDS_BETWEEN.items():
            is_due = now - self._moved_at[group] >= seconds
            if is_due and self._shown_posts[group] != state.posts:
                changed.add(group)
        if state.answers != before.answers:
            changed.add("answers")
        if _of_sources(state) != _of_sources(before):
            changed.add("sources")
        if state.model != before.model:
            changed.add("model")
        return changed

    def _raise(self, changed: set[Group]) -> None:
        if not changed:
            return
        self.number += 1
        self.numbers = {**self.numbers, **dict.fromkeys(changed, self.number)}
        now = time.monotonic()
        for group in changed:
            self._moved_at[group] = now
        self._wake()

    def _note_problem(self, problem: str) -> None:
        if self.reached.problem is None:
            logger.warning("the database cannot be read: %s", problem)
            self.reached = Reached(problem, datetime.now(UTC), self.reached.posts_changed_at)
            # No group changed: what is shown stays, but the page says so.
            self.number += 1
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _poll(self) -> None:
        while not self.is_closed:
            await asyncio.sleep(POLL_SECONDS)
            await self.check()


def _of_sources(state: DataState) -> tuple[object, ...]:
    return state.sources, state.gaps, state.suspicious, state.incidents


def _read_state(connection: Connection[Any]) -> DataState:
    with connection.cursor(row_factory=class_row(DataState)) as cursor:
        state = cursor.execute(_STATE).fetchone()
    assert state is not None
    return state
