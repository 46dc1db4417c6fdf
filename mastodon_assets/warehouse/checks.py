"""Facts that hold for the tables, as queries: the registry against the database, sums, keys."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.change_log import changed_days
from mastodon_assets.warehouse.tables import SCHEMA, Table

# A history of so many days is compared whole; of a longer one the days that changed, and some that
# the version of the toots draws, so that each day's turn comes.
_DAYS_COMPARED_WHOLE = 31
_DAYS_DRAWN = 3
_DRAW_DAYS = """
SELECT day FROM (SELECT DISTINCT day FROM masto.sentiment_totals) days
 ORDER BY md5(day::text || (SELECT version FROM masto.data_versions WHERE dataset = 'toots_raw'))
 LIMIT %s
"""
_WINDOWS_AND_ROWS = """
SELECT day,
       (SELECT coalesce(sum(toots_count), 0)::bigint FROM masto.toot_metrics_windowed
         WHERE window_start >= midnight AND window_start < midnight + interval '1 day'),
       (SELECT count(*) FROM masto.toots_raw
         WHERE event_at >= midnight AND event_at < midnight + interval '1 day')
  FROM unnest(%s::date[]) day, LATERAL (SELECT day::timestamp AT TIME ZONE 'UTC' AS midnight) at
"""


def schema_differences(connection: Connection[Any], table: Table) -> list[str]:
    """What differs between the registry and the database, a line each; empty where nothing does."""
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
    differences += [f"{name}: not in the registry" for name in found.keys() - expected.keys()]
    differences += [
        f"{name}: {_shown(found[name])} instead of {_shown(expected[name])}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    if not table.is_view and (key := primary_key(connection, table)) != table.key:
        differences.append(f"primary key {key} instead of {table.key}")
    return sorted(differences)


def primary_key(connection: Connection[Any], table: Table) -> tuple[str, ...]:
    """Columns of the primary key in its order; empty where there is none."""
    rows = connection.execute(
        "SELECT a.attname FROM pg_index i"
        "  CROSS JOIN unnest(i.indkey) WITH ORDINALITY k (attnum, place)"
        "  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
        " WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.place",
        (f"{SCHEMA}.{table.name}",),
    ).fetchall()
    return tuple(name for (name,) in rows)


def duplicate_keys(connection: Connection[Any], table: Table) -> int:
    """Keys that more than one row has; 0 without looking where the primary key forbids it."""
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


def days_to_compare(connection: Connection[Any]) -> list[date] | None:
    """Days whose derived rows a refresh compares with the toots; None for all there are."""
    row = connection.execute("SELECT count(DISTINCT day) FROM masto.sentiment_totals").fetchone()
    changed = changed_days(connection)
    assert row is not None
    if row[0] <= _DAYS_COMPARED_WHOLE or len(changed) > _DAYS_COMPARED_WHOLE:
        return None
    drawn = connection.execute(_DRAW_DAYS, (_DAYS_DRAWN,))
    return sorted({*changed, *(day for (day,) in drawn)})


def windows_and_rows(
    connection: Connection[Any], days: Sequence[date]
) -> list[tuple[date, int, int]]:
    """Of each day: the sum of `toots_count` over `toot_metrics_windowed`, and its toots."""
    return connection.execute(_WINDOWS_AND_ROWS, (list(days),)).fetchall()


def window_sum_and_rows(connection: Connection[Any]) -> tuple[int, int]:
    """Sum of `toots_count` over `toot_metrics_windowed`, and the rows of `toots_raw`."""
    row = connection.execute(
        "SELECT (SELECT coalesce(sum(toots_count), 0)::bigint FROM masto.toot_metrics_windowed),"
        "       (SELECT count(*) FROM masto.toots_raw)"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _shown(column: tuple[str, bool]) -> str:
    type_, nullable = column
    return type_ if nullable else f"{type_} not null"
