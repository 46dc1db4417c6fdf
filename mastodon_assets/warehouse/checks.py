"""Checks of the tables: the catalog against the database, sums against rows, unique keys."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.horizons import with_horizons
from mastodon_assets.warehouse.tables import SCHEMA, Table

# A history of up to that many days is compared as a whole. Of a longer one, the days that changed
# since the check last passed are compared, and those whose turn it is in this hour of the week.
_MAX_DAYS_COMPARED = 31
_DAYS_TO_COMPARE = with_horizons(
    """
SELECT day FROM masto.day_totals
 WHERE day >= {posts_day}
   AND (toots_version > (SELECT toots_version FROM masto.asset_progress WHERE asset = %s)
        OR (day - date '2000-01-01') %% 168
           = floor(extract(epoch FROM now()) / 3600)::bigint %% 168)
 ORDER BY day
"""
)
_WINDOWS_AND_ROWS = with_horizons(
    """
SELECT day,
       (SELECT coalesce(sum(toots_count), 0)::bigint FROM masto.toot_metrics_windowed
         WHERE window_start >= midnight AND window_start < midnight + interval '1 day'),
       (SELECT count(*) FROM masto.toots_raw
         WHERE event_at >= midnight AND event_at < midnight + interval '1 day')
  FROM unnest(%s::date[]) day, LATERAL (SELECT day::timestamp AT TIME ZONE 'UTC' AS midnight) at
 WHERE midnight >= greatest({posts_since}, {windows_since})
"""
)
_WINDOW_SUM_AND_ROWS = with_horizons(
    """
SELECT (SELECT coalesce(sum(toots_count), 0)::bigint FROM masto.toot_metrics_windowed
         WHERE window_start >= greatest({posts_since}, {windows_since})),
       (SELECT count(*) FROM masto.toots_raw
         WHERE event_at >= greatest({posts_since}, {windows_since}))
"""
)


def schema_differences(connection: Connection[Any], table: Table) -> list[str]:
    """List the differences between catalog and database, one line each."""
    found = {
        name: (type_, nullable)
        for name, type_, nullable in connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull"
            "  FROM pg_attribute WHERE attrelid = to_regclass(%s)"
            "   AND attnum > 0 AND NOT attisdropped",
            (f"{SCHEMA}.{table.name}",),
        )
    }
    expected = {column.name: (column.type, column.nullable) for column in table.columns}
    differences = [f"{name}: missing" for name in expected.keys() - found.keys()]
    differences += [f"{name}: not in the catalog" for name in found.keys() - expected.keys()]
    differences += [
        f"{name}: {_shown(found[name])} instead of {_shown(expected[name])}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    if not table.is_view and (key := primary_key(connection, table)) != table.key:
        differences.append(f"primary key {key} instead of {table.key}")
    return sorted(differences)


def primary_key(connection: Connection[Any], table: Table) -> tuple[str, ...]:
    """Return the columns of the primary key in order; empty if there is none."""
    rows = connection.execute(
        "SELECT a.attname FROM pg_index i"
        "  CROSS JOIN unnest(i.indkey) WITH ORDINALITY k (attnum, place)"
        "  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
        " WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.place",
        (f"{SCHEMA}.{table.name}",),
    ).fetchall()
    return tuple(name for (name,) in rows)


def duplicate_keys(connection: Connection[Any], table: Table) -> int:
    """Count the keys that several rows share; the rows are not read if a primary key exists."""
    if not table.is_view and primary_key(connection, table) == table.key:
        return 0
    row = connection.execute(
        sql.SQL(
            "SELECT count(*) FROM (SELECT FROM {} GROUP BY {} HAVING count(*) > 1) repeated"
        ).format(
            sql.Identifier(SCHEMA, table.name),
            sql.SQL(", ").join(sql.Identifier(name) for name in table.key),
        )
    ).fetchone()
    assert row is not None
    return int(row[0])


def days_to_compare(connection: Connection[Any], check: str) -> list[date] | None:
    """Return the days whose derived rows `check` compares with the posts.

    None stands for all days from the horizon of posts on.
    """
    row = connection.execute(
        with_horizons(
            "SELECT count(*), EXISTS (SELECT FROM masto.asset_progress WHERE asset = %s)"
            "  FROM masto.day_totals WHERE day >= {posts_day}"
        ),
        (check,),
    ).fetchone()
    assert row is not None
    if row[0] <= _MAX_DAYS_COMPARED or not row[1]:
        return None
    return [day for (day,) in connection.execute(_DAYS_TO_COMPARE, (check,))]


def windows_and_rows(
    connection: Connection[Any], days: Sequence[date]
) -> list[tuple[date, int, int]]:
    """Return each day, its sum of `toots_count` in `toot_metrics_windowed`, and its posts."""
    return connection.execute(_WINDOWS_AND_ROWS, (list(days),)).fetchall()


def window_sum_and_rows(connection: Connection[Any]) -> tuple[int, int]:
    """Return the sum of `toots_count` in `toot_metrics_windowed` and the rows of `toots_raw`.

    Both count from the later of the two horizons on.
    """
    row = connection.execute(_WINDOW_SUM_AND_ROWS).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _shown(column: tuple[str, bool]) -> str:
    type_, nullable = column
    return type_ if nullable else f"{type_} not null"
