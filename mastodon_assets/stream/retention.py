"""Retention of the tables: rows that are too old are removed, a limited time at once.

What belongs here: what is too old. First the horizon moves, so that no such row is stored again,
then the rows go in chunks. Whatever interrupts it, the next call continues.

Posts go with their scores, engagement and aliases, and with what sums say of their authors. Counts
per minute, hour, day, language and hashtag stay: those per hour are brought up to date before the
horizon moves. Tombstones of known posts stay: they keep deleted posts away. A delete of an id that
was never stored is kept for some days only, because it may name a post that was never public.
"""

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.stream.removal import Removal, delete_rows
from mastodon_assets.warehouse.changed_hours import mark_hours
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction
from mastodon_assets.warehouse.horizons import (
    Dataset,
    midnight,
    move_horizon,
    read_horizons,
    with_horizons,
)
from mastodon_assets.warehouse.hourly import refresh_hours
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.tables import (
    ALERTS,
    HOME_IDS,
    HOME_QUESTIONS,
    STREAM_GAPS,
    TOOT_ALIASES,
    TOOT_METRICS_WINDOWED,
    TOOTS_DELETED,
    TOOTS_REJECTED,
    USER_AVG_LENGTH_WINDOWED,
    Table,
)

_POSTS_AT_ONCE = 50_000

_IS_UNKNOWN: LiteralString = """
NOT EXISTS (SELECT FROM masto.toot_aliases a
             WHERE (a.instance, a.status_id) = (t.instance, t.status_id))
  AND NOT EXISTS (SELECT FROM masto.home_ids h
                   WHERE (h.instance, h.status_id) = (t.instance, t.status_id))
"""
# Their homes were not read yet when the deletes arrived, or the ids were not known then.
_IS_DELETED_AT_HOME: LiteralString = """
id IN (SELECT h.id FROM masto.home_ids h JOIN masto.toots_deleted USING (instance, status_id))
"""


@dataclass(frozen=True)
class RemovedRows:
    """What was removed, and whether there is more.

    Attributes:
        posts: Rows of `toots_raw`.
        windows: Rows of the two window tables, besides those that went with posts.
        rejected: Rows of `toots_rejected`.
        deletes: Rows of `toots_deleted`, for posts that were never stored.
        is_complete: Whether all that is too old is gone.
        alerts: Closed incidents of `alerts`.
        gaps: Rows of `stream_gaps`.
    """

    posts: int
    windows: int
    rejected: int
    is_complete: bool
    alerts: int = 0
    deletes: int = 0
    gaps: int = 0


def remove_old_rows(settings: Settings, now: datetime, *, seconds: float) -> RemovedRows:
    """Remove what is older than the days in the settings.

    They are those of POSTS_, WINDOWS_, REJECTED_, ALERTS_ and UNKNOWN_DELETES_KEEP_DAYS.

    Args:
        settings: They name the database and the days.
        now: The time. A day counts as a whole, in UTC.
        seconds: Time after which nothing more is begun.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    until = time.monotonic() + seconds
    with transaction(settings.postgres_url) as connection:
        is_frozen = _freeze_posts(connection, settings.posts_keep_days, now, until)
        _move(connection, "windows", settings.windows_keep_days, now)
        remove_posts_deleted_at_home(connection, until=until)
        posts, are_posts_gone = _remove_posts(connection, until)
        is_old_window = with_horizons("window_start < {windows_since}")
        windows = [
            delete_rows(connection, table, is_old_window, oldest_by="window_start", until=until)
            for table in (TOOT_METRICS_WINDOWED, USER_AVG_LENGTH_WINDOWED)
        ]
        before = now - timedelta(days=settings.rejected_keep_days)
        rejected = _remove_before(connection, TOOTS_REJECTED, "rejected_at", before, until)
        before = now - timedelta(days=settings.alerts_keep_days)
        alerts = _remove_before(connection, ALERTS, "closed_at", before, until)
        gaps = _remove_gaps(connection, before, until)
        before = now - timedelta(days=settings.unknown_deletes_keep_days)
        deletes = _remove_unknown_deletes(connection, before, until)
        # Servers that are not read any more will not answer.
        _remove_before(connection, HOME_QUESTIONS, "since", before, until)
    others = (*windows, rejected, alerts, gaps, deletes)
    return RemovedRows(
        posts=posts,
        windows=sum(removed for removed, _ in windows),
        rejected=rejected[0],
        alerts=alerts[0],
        gaps=gaps[0],
        deletes=deletes[0],
        is_complete=is_frozen and are_posts_gone and all(is_whole for _, is_whole in others),
    )


def _remove_before(
    connection: Connection[Any], table: Table, column: LiteralString, before: datetime, until: float
) -> tuple[int, bool]:
    """Remove the rows of a time before `before`; return their number and whether all are gone."""
    condition = sql.SQL("{} < {}").format(sql.Identifier(column), sql.Literal(before))
    return delete_rows(connection, table, condition, oldest_by=column, until=until)


def _remove_gaps(connection: Connection[Any], before: datetime, until: float) -> tuple[int, bool]:
    """Remove gaps without missing posts that ended before `before`, and those before the windows.

    A gap with missing posts says of the counts of its time that they are too low. It stays as long
    as the windows of that time.
    """
    condition = with_horizons(
        "status <> 'open' AND ended_at < {windows_since}"
        " OR status = 'recovered' AND ended_at < {before}",
        before=sql.Literal(before),
    )
    return delete_rows(connection, STREAM_GAPS, condition, oldest_by="ended_at", until=until)


def _remove_unknown_deletes(
    connection: Connection[Any], before: datetime, until: float
) -> tuple[int, bool]:
    """Remove deletes of posts that were never stored; return their number and whether all are gone.

    The hours in which they are counted change.
    """
    condition = sql.SQL(_IS_UNKNOWN) + sql.SQL(" AND deleted_at < {}").format(sql.Literal(before))
    query = sql.SQL(
        "SELECT DISTINCT date_trunc('hour', deleted_at, 'UTC') FROM masto.toots_deleted t WHERE"
    )
    with connection.transaction():
        hours = [hour for (hour,) in connection.execute(query + condition)]
    try:
        return delete_rows(connection, TOOTS_DELETED, condition, until=until)
    finally:
        if hours:
            with connection.transaction():
                take_write_lock(connection)
                mark_hours(connection, hours)


def remove_posts_deleted_at_home(connection: Connection[Any], *, until: float | None = None) -> int:
    """Remove posts whose homes deleted them before it was known which posts the ids are of.

    Args:
        connection: A connection without a transaction.
        until: Time of `time.monotonic()` after which nothing more is begun.

    Returns:
        The number of posts removed.
    """
    # The ids stay: with the tombstones they keep the posts away.
    removal = Removal(connection, _IS_DELETED_AT_HOME, {}, kept_tables=(HOME_IDS, TOOT_ALIASES))
    removal.remove(until=until)
    return removal.removed


def count_unknown_deletes(postgres_url: SecretStr) -> int:
    """Return how many deletes are kept of posts that were never stored.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    query = sql.SQL("SELECT count(*) FROM masto.toots_deleted t WHERE") + sql.SQL(_IS_UNKNOWN)
    with transaction(postgres_url, snapshot=True, max_seconds=PERSON_SECONDS) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _freeze_posts(
    connection: Connection[Any], days: int | None, now: datetime, until: float
) -> bool:
    """Move the horizon of posts once the hourly tables of the days before it are up to date.

    Returns:
        Whether the horizon is where it should be.
    """
    if days is None:
        return True
    if read_horizons(connection).posts < (first_day := _first_day(days, now)):
        connection.commit()
        waiting = refresh_hours(
            connection, before=midnight(first_day), until=until, waits_for_others=False
        )
        if not waiting.is_complete:
            return False
    _move(connection, "posts", days, now)
    return True


def _first_day(days: int, now: datetime) -> date:
    return (now.astimezone(UTC) - timedelta(days=days)).date()


def _move(connection: Connection[Any], dataset: Dataset, days: int | None, now: datetime) -> None:
    if days is not None:
        with connection.transaction():
            take_write_lock(connection)
            move_horizon(connection, dataset, _first_day(days, now))


def _remove_posts(connection: Connection[Any], until: float) -> tuple[int, bool]:
    """Remove the posts before the horizon; return their number and whether all are gone."""
    removed = 0
    while True:
        removal = Removal(connection, "event_at < {posts_since}", {}, limit=_POSTS_AT_ONCE)
        is_whole = removal.remove(until=until)
        removed += removal.removed
        if not is_whole or removal.count < _POSTS_AT_ONCE:
            return removed, is_whole
