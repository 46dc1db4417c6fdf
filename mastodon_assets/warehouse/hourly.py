"""The hourly tables: what they contain, and their refresh for the hours that changed.

What belongs here: the numbers of an hour, computed from its posts, scores and deletes. A refresh
computes them in a snapshot and then writes only what differs, so writers never wait for the
computation. Hours before the horizon of posts stay as they are, for good. The sums of days in
`daily` change with them.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.daily import DAILY_SUMS, days_that_differ
from mastodon_assets.warehouse.database import snapshot_of
from mastodon_assets.warehouse.horizons import with_horizons
from mastodon_assets.warehouse.locks import HOURLY_LOCK, take_write_lock, write_ranges
from mastodon_assets.warehouse.staging import (
    HOURLY_POSTS,
    REFRESHED_HOURS,
    with_staging,
)
from mastodon_assets.warehouse.sum_tables import names_of
from mastodon_assets.warehouse.tables import (
    HOURLY_ACTIVITY,
    HOURLY_DELETES,
    HOURLY_HASHTAG_ACCOUNTS,
    HOURLY_HASHTAGS,
    HOURLY_SENTIMENT,
    SCHEMA,
    Table,
)

logger = logging.getLogger(__name__)

Report = Callable[[str], None]

# Hours computed at once: as many as are written in a fraction of a second, see `locks`.
_FIRST_HOURS, _MOST_HOURS = 4, 240
_SECONDS_PER_WRITE, _SECONDS_PER_CHUNK = 0.2, 2.0
# Rows written in one transaction, which takes a fraction of a second.
_MOST_ROWS = 10_000
_SECONDS_BETWEEN_REPORTS = 10.0


@dataclass(frozen=True)
class HourlyTable:
    """An hourly table, and the SELECT of its rows for the hours in `refreshed_hours`."""

    table: Table
    rows: LiteralString

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in statements."""
        return sql.Identifier(SCHEMA, self.table.name)

    @property
    def changes(self) -> sql.Identifier:
        """The staging table of its rows that differ."""
        return sql.Identifier("pg_temp", f"changed_{self.table.name}")


@dataclass(frozen=True)
class HourlyRefresh:
    """What a refresh did.

    Attributes:
        hours: Hours that were computed.
        rows_changed: Rows written or deleted per table.
        is_complete: Whether all hours are done that were marked when the refresh began.
    """

    hours: int
    rows_changed: dict[str, int]
    is_complete: bool


# Two steps are faster than `count(DISTINCT username)`, which sorts.
_ACTIVITY = """
SELECT hour, instance, lang, sum(posts)::bigint AS toots_count, count(*) AS accounts_count,
       sum(in_1m)::bigint AS received_1m,
       sum(in_10m - in_1m)::bigint AS received_10m,
       sum(in_1h - in_10m)::bigint AS received_1h,
       sum(in_1d - in_1h)::bigint AS received_1d,
       sum(posts - in_1d)::bigint AS received_later
  FROM (SELECT hour, instance, lang, username, count(*) AS posts,
               count(*) FILTER (WHERE lateness <= interval '1 minute') AS in_1m,
               count(*) FILTER (WHERE lateness <= interval '10 minutes') AS in_10m,
               count(*) FILTER (WHERE lateness <= interval '1 hour') AS in_1h,
               count(*) FILTER (WHERE lateness <= interval '1 day') AS in_1d
          FROM {hourly_posts} GROUP BY hour, instance, lang, username) accounts
 GROUP BY hour, instance, lang
"""
# Decimals add up to the same in any order.
_SENTIMENT = """
SELECT hour, instance, lang, outcome, count(*) AS toots_count,
       coalesce(sum(prob_pos::numeric), 0) AS total_prob_pos
  FROM {hourly_posts} GROUP BY hour, instance, lang, outcome
"""
_HASHTAGS = """
SELECT hour, hashtag, instance, lang, sum(posts)::bigint AS toots_count,
       count(*) AS accounts_count, sum(n_pos)::bigint AS n_pos, sum(n_neu)::bigint AS n_neu,
       sum(n_neg)::bigint AS n_neg
  FROM (SELECT hour, hashtag, instance, lang, username, count(*) AS posts,
               count(*) FILTER (WHERE outcome = 'positive') AS n_pos,
               count(*) FILTER (WHERE outcome = 'neutral') AS n_neu,
               count(*) FILTER (WHERE outcome = 'negative') AS n_neg
          FROM {hourly_posts}, unnest(hashtags) AS hashtag
         GROUP BY hour, hashtag, instance, lang, username) accounts
 GROUP BY hour, hashtag, instance, lang
"""
_HASHTAG_ACCOUNTS = """
SELECT hour, hashtag, count(*) AS accounts_count
  FROM (SELECT DISTINCT hour, hashtag, username
          FROM {hourly_posts}, unnest(hashtags) AS hashtag) accounts
 GROUP BY hour, hashtag
"""
_DELETES = """
SELECT hour, instance, count(*) AS deletes_count, count(a.id) AS stored_count
  FROM {refreshed_hours}
  JOIN masto.toots_deleted d ON deleted_at >= hour AND deleted_at < hour + interval '1 hour'
  LEFT JOIN masto.toot_aliases a USING (instance, status_id)
 WHERE hour >= {posts_since}
 GROUP BY hour, instance
"""
HOURLY_TABLES = (
    HourlyTable(HOURLY_ACTIVITY, _ACTIVITY),
    HourlyTable(HOURLY_SENTIMENT, _SENTIMENT),
    HourlyTable(HOURLY_HASHTAGS, _HASHTAGS),
    HourlyTable(HOURLY_HASHTAG_ACCOUNTS, _HASHTAG_ACCOUNTS),
    HourlyTable(HOURLY_DELETES, _DELETES),
)

_EMPTY_STAGING = with_staging("TRUNCATE {refreshed_hours}, {hourly_posts}")
_STAGE_HOURS = with_staging(
    """
INSERT INTO {refreshed_hours} (hour, changes)
SELECT hour, changes FROM unnest(%s::timestamptz[]) hour LEFT JOIN masto.changed_hours USING (hour)
"""
)
# OFFSET 0: see `rollups`.
_STAGE_POSTS = with_staging(
    """
INSERT INTO {hourly_posts} (hour, lateness, prob_pos, instance, lang, username, outcome, hashtags)
SELECT hour, r.received_at - greatest(r.created_at, r.edited_at), s.prob_pos, r.instance, r.lang,
       r.username,
       CASE WHEN s.id IS NULL THEN 'not_scored' ELSE coalesce(s.label_str, s.reason) END,
       r.hashtags
  FROM {refreshed_hours}
  JOIN masto.toots_raw r ON r.event_at >= hour AND r.event_at < hour + interval '1 hour'
  LEFT JOIN LATERAL (SELECT * FROM masto.toots_sentiment WHERE id = r.id OFFSET 0) s ON true
 WHERE hour >= {posts_since}
"""
)
_CREATE_CHANGES = """
CREATE TEMP TABLE IF NOT EXISTS {name} ON COMMIT PRESERVE ROWS AS
SELECT *, 0::bigint AS place, false AS is_gone FROM {table} WITH NO DATA
"""
# The values of a row that is gone are empty.
_STAGE_CHANGES = """
INSERT INTO {changes} ({key}, {values}, place, is_gone)
SELECT {key}, {computed}, row_number() OVER () - 1, ({computed}) IS NULL
  FROM ({rows}) computed
  FULL JOIN (SELECT * FROM {table}
              WHERE hour IN (SELECT hour FROM {refreshed_hours} WHERE hour >= {posts_since})) stored
 USING ({key})
 WHERE ({computed}) IS DISTINCT FROM ({stored})
"""
_DELETE_GONE = """
DELETE FROM {table} t USING {changes} c
 WHERE c.is_gone AND c.place >= %(first)s AND c.place < %(last)s AND {same_key}
"""
_WRITE_CHANGES = """
INSERT INTO {table} ({key}, {values})
SELECT {key}, {values} FROM {changes}
 WHERE NOT is_gone AND place >= %(first)s AND place < %(last)s
    ON CONFLICT ({key}) DO UPDATE SET ({values}) = ROW ({excluded})
"""
_ALL_HOURS = """
SELECT date_trunc('hour', event_at, 'UTC') FROM masto.toots_raw WHERE event_at >= {posts_since}
 UNION
SELECT date_trunc('hour', deleted_at, 'UTC') FROM masto.toots_deleted
 WHERE deleted_at >= {posts_since}
 UNION
SELECT hour FROM {table} WHERE hour >= {posts_since}
"""
# An hour whose turn it is and that has no mark, after %(after)s.
_NEXT_HOUR = with_horizons(
    """
SELECT hour, (SELECT coalesce(sum(toots_count), 0)::bigint FROM masto.hourly_activity a
               WHERE a.hour = hours.hour)
  FROM (
    SELECT date_trunc('hour', min(event_at), 'UTC') AS hour FROM masto.toots_raw
     WHERE event_at >= greatest(%(after)s + interval '1 hour', {posts_since})
     UNION ALL
    SELECT min(hour) FROM masto.hourly_activity
     WHERE hour > %(after)s AND hour >= {posts_since}) hours
 WHERE hour IS NOT NULL ORDER BY hour LIMIT 1
"""
)
_REMOVE_MARKS = with_staging(
    """
DELETE FROM masto.changed_hours marked USING {refreshed_hours} refreshed
 WHERE (marked.hour, marked.changes) = (refreshed.hour, refreshed.changes)
"""
)


def refresh_hours(
    connection: Connection[Any],
    *,
    before: datetime | None = None,
    until: float | None = None,
    waits_for_others: bool = True,
    report: Report = logger.info,
) -> HourlyRefresh:
    """Compute the marked hours again, the newest first, and remove their marks.

    An hour that changes meanwhile keeps its mark. What was written stays if a later hour fails. An
    hour with many rows is written in several transactions, so that writers get in between.

    Args:
        connection: A connection without a transaction.
        before: Only hours before it.
        until: Time of `time.monotonic()` after which no other hours begin.
        waits_for_others: Whether to wait for a refresh that runs; if not, do nothing meanwhile.
        report: Receives a line every ten seconds.
    """
    with _one_refresh(connection, waits=waits_for_others) as is_ours:
        if not is_ours:
            return HourlyRefresh(0, {}, is_complete=False)
        query = "SELECT hour FROM masto.changed_hours WHERE hour < %s ORDER BY hour DESC"
        hours = _hours(connection, query, (before or datetime.max.replace(tzinfo=UTC),))
        return _refresh(connection, hours, HOURLY_TABLES, until=until, report=report)


def rebuild_hourly(connection: Connection[Any], table: Table, report: Report = logger.info) -> int:
    """Compute all hours of a table again; return the rows that differed.

    Args:
        connection: A connection without a transaction.
        table: One of `tables.HOURLY`.
        report: Receives a line every ten seconds.
    """
    (hourly,) = (each for each in HOURLY_TABLES if each.table == table)
    with _one_refresh(connection, waits=True):
        query = with_horizons(_ALL_HOURS, table=hourly.identifier)
        hours = sorted(_hours(connection, query), reverse=True)
        # Marks are of all tables, so they stay.
        return sum(_refresh(connection, hours, (hourly,), report=report).rows_changed.values())


def next_hours(
    connection: Connection[Any], after: datetime, *, most: int, most_posts: int
) -> tuple[list[datetime], bool]:
    """Return hours after `after` that have posts or numbers, and whether there are more.

    Args:
        connection: A transaction.
        after: An hour.
        most: The largest number of hours.
        most_posts: No hour follows once the hours have that many posts.
    """
    hours: list[datetime] = []
    posts = 0
    while row := connection.execute(_NEXT_HOUR, {"after": after}).fetchone():
        if len(hours) == most or posts >= most_posts:
            return hours, True
        after, posts = row[0], posts + row[1]
        hours.append(after)
    return hours, False


def hours_that_differ(
    connection: Connection[Any], hours: Sequence[datetime]
) -> dict[str, list[datetime]]:
    """Compare hours of the hourly tables with posts, scores and deletes, and daily sums with hours.

    An hour with a mark is not compared: it waits for the refresh.

    Args:
        connection: A connection without a transaction.
        hours: Hours to compare.

    Returns:
        Table to its hours or days that differ, without tables that have none.
    """
    _create_staging(connection)
    with snapshot_of(connection):
        marked = "SELECT hour FROM masto.changed_hours WHERE hour = ANY(%s)"
        waiting = {hour for (hour,) in connection.execute(marked, (list(hours),))}
        _compute(connection, [hour for hour in hours if hour not in waiting], HOURLY_TABLES)
        found = {
            hourly.table.name: [
                hour
                for (hour,) in connection.execute(
                    sql.SQL("SELECT DISTINCT hour FROM {} ORDER BY hour").format(hourly.changes)
                )
            ]
            for hourly in HOURLY_TABLES
        }
        days = {hour.astimezone(UTC).replace(hour=0) for hour in hours}
        found |= days_that_differ(connection, sorted(days))
    return {name: differing for name, differing in found.items() if differing}


def _refresh(
    connection: Connection[Any],
    hours: Sequence[datetime],
    tables: Sequence[HourlyTable],
    *,
    until: float | None = None,
    report: Report,
) -> HourlyRefresh:
    _create_staging(connection)
    rows_changed = dict.fromkeys((hourly.table.name for hourly in tables), 0)
    done, most, reported_at = 0, _FIRST_HOURS, time.monotonic()
    while done < len(hours) and (until is None or time.monotonic() < until):
        began_at = time.monotonic()
        chunk = hours[done : done + most]
        with snapshot_of(connection):
            counts = _compute(connection, chunk, tables)
        seconds_to_write = _write_all(connection, tables, counts)
        for name, count in counts.items():
            rows_changed[name] += count
        done += len(chunk)
        now = time.monotonic()
        most = _next_most(most, seconds_to_write, now - began_at)
        if now - reported_at >= _SECONDS_BETWEEN_REPORTS:
            reported_at = now
            report(f"hourly tables: {done:,} of {len(hours):,} hours computed")
    return HourlyRefresh(done, rows_changed, is_complete=done == len(hours))


def _write_all(
    connection: Connection[Any], tables: Sequence[HourlyTable], counts: Mapping[str, int]
) -> float:
    """Write what was staged; return for how many seconds the last transaction held the lock."""
    is_large = sum(counts.values()) > _MOST_ROWS
    if is_large:
        for hourly in tables:
            write_ranges(connection, counts[hourly.table.name], partial(_write, connection, hourly))
    with connection.transaction():
        take_write_lock(connection)
        began_at = time.monotonic()
        if not is_large:
            for hourly in tables:
                _write(connection, hourly, 0, counts[hourly.table.name])
        if tables == HOURLY_TABLES:
            connection.execute(_REMOVE_MARKS)
    return time.monotonic() - began_at


def _next_most(most: int, seconds_to_write: float, seconds: float) -> int:
    """Return how many hours to compute next."""
    factor = min(
        2.0,
        _SECONDS_PER_WRITE / max(seconds_to_write, 0.001),
        _SECONDS_PER_CHUNK / max(seconds, 0.001),
    )
    return min(_MOST_HOURS, max(1, int(most * factor)))


def _compute(
    connection: Connection[Any], hours: Sequence[datetime], tables: Sequence[HourlyTable]
) -> dict[str, int]:
    """Stage what differs between the stored rows of these hours and the computed ones.

    Returns:
        Table to the number of its rows that differ.
    """
    # Sorts and hashes of an hour stay in memory.
    connection.execute("SET LOCAL work_mem = '64MB'")
    connection.execute(_EMPTY_STAGING)
    connection.execute(_STAGE_HOURS, (list(hours),))
    connection.execute(_STAGE_POSTS)
    connection.execute(with_staging("ANALYZE {refreshed_hours}, {hourly_posts}"))
    counts = {}
    for hourly in tables:
        connection.execute(sql.SQL("TRUNCATE {}").format(hourly.changes))
        staged = connection.execute(_STAGING_CHANGES[hourly.table.name])
        counts[hourly.table.name] = staged.rowcount
    return counts


def _write(connection: Connection[Any], hourly: HourlyTable, first: int, last: int) -> None:
    """Write the staged rows from the first number to before the second, and their daily sums."""
    for statement in _WRITING[hourly.table.name]:
        connection.execute(statement, {"first": first, "last": last})


def _create_staging(connection: Connection[Any]) -> None:
    with connection.transaction():
        for staging in (REFRESHED_HOURS, HOURLY_POSTS):
            staging.create(connection)
        for hourly in HOURLY_TABLES:
            connection.execute(_statement(_CREATE_CHANGES, hourly))


def _statement(statement: LiteralString, hourly: HourlyTable) -> sql.Composed:
    key = hourly.table.key
    values = [name for name in hourly.table.column_names if name not in key]
    return with_staging(
        statement,
        name=sql.Identifier(f"changed_{hourly.table.name}"),
        table=hourly.identifier,
        changes=hourly.changes,
        rows=with_staging(hourly.rows),
        key=names_of(key),
        values=names_of(values),
        same_key=sql.SQL(" AND ").join(
            sql.SQL("t.{0} = c.{0}").format(sql.Identifier(name)) for name in key
        ),
        **{
            part: sql.SQL(", ").join(sql.Identifier(part, name) for name in values)
            for part in ("computed", "stored", "excluded")
        },
    )


_STAGING_CHANGES = {
    hourly.table.name: _statement(_STAGE_CHANGES, hourly) for hourly in HOURLY_TABLES
}
# Daily sums first: they change by the difference to what is stored.
_WRITING = {
    hourly.table.name: [
        *(daily.adding(hourly.changes) for daily in DAILY_SUMS if daily.hourly == hourly.table),
        _statement(_DELETE_GONE, hourly),
        _statement(_WRITE_CHANGES, hourly),
    ]
    for hourly in HOURLY_TABLES
}


def _hours(
    connection: Connection[Any], query: LiteralString | sql.Composed, parameters: Any = None
) -> list[datetime]:
    with connection.transaction():
        return [hour for (hour,) in connection.execute(query, parameters)]


@contextmanager
def _one_refresh(connection: Connection[Any], *, waits: bool) -> Iterator[bool]:
    """Let one refresh run at a time; yield whether this one may."""
    lock = "pg_advisory_lock" if waits else "pg_try_advisory_lock"
    query = sql.SQL("SELECT {}(%s)").format(sql.Identifier(lock))
    with connection.transaction():
        row = connection.execute(query, (HOURLY_LOCK,)).fetchone()
    is_ours = row is not None and row[0] is not False
    try:
        yield is_ours
    finally:
        if is_ours and not connection.broken:
            connection.rollback()
            with connection.transaction():
                connection.execute("SELECT pg_advisory_unlock(%s)", (HOURLY_LOCK,))
