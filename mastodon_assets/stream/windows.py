"""One-minute windows: moved by what a batch changed, or rebuilt from `toots_raw`.

What belongs here: what a window is. Both ways give the same rows; a check compares their sum with
the rows of `toots_raw`.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rows import copy_arrow, replace_rows
from mastodon_assets.warehouse.tables import (
    SCHEMA,
    TOOT_METRICS_WINDOWED,
    USER_AVG_LENGTH_WINDOWED,
    Table,
)

if TYPE_CHECKING:
    import pyarrow as pa

# The column that a window table counts by, besides the minute.
_DIMENSIONS = {TOOT_METRICS_WINDOWED.name: "lang", USER_AVG_LENGTH_WINDOWED.name: "username"}

# `changed_rows` holds a row of toots_raw before a change with sign -1 and after it with sign +1,
# so an edit moves only what differs, and a count that comes to nothing removes its window.
_APPLY_CHANGES = """
MERGE INTO {table} w
USING (SELECT date_trunc('minute', event_at, 'UTC') AS window_start, {dimension},
              sum(sign) AS toots_count, sum(sign * length) AS total_length
         FROM pg_temp.changed_rows
        GROUP BY 1, 2
       HAVING sum(sign) <> 0 OR sum(sign * length) <> 0) c
   ON w.window_start = c.window_start AND w.{dimension} = c.{dimension}
 WHEN MATCHED AND w.toots_count + c.toots_count = 0 THEN DELETE
 WHEN MATCHED THEN UPDATE SET toots_count = w.toots_count + c.toots_count,
                              total_length = w.total_length + c.total_length
 WHEN NOT MATCHED THEN
      INSERT (window_start, window_end, {dimension}, toots_count, total_length)
      VALUES (c.window_start, c.window_start + interval '1 minute', c.{dimension},
              c.toots_count, c.total_length)
"""

_OF_ALL = """
SELECT window_start, window_start + interval '1 minute' AS window_end, {dimension}, toots_count,
       total_length
  FROM (SELECT date_trunc('minute', event_at, 'UTC') AS window_start, {dimension},
               count(*) AS toots_count, sum(char_length(content_txt)) AS total_length
          FROM masto.toots_raw
         GROUP BY 1, 2) counted
"""

_PREPARE = """
CREATE TEMP TABLE IF NOT EXISTS {grown} (
    place integer, window_start timestamptz, name text COLLATE "C", toots_count bigint,
    total_length bigint
) ON COMMIT DELETE ROWS
"""

_GROW = """
UPDATE {table} w
   SET toots_count = w.toots_count + g.toots_count,
       total_length = w.total_length + g.total_length
  FROM pg_temp.{grown} g
 WHERE w.window_start = g.window_start AND w.{dimension} = g.name
RETURNING g.place
"""


def apply_changes(connection: Connection[Any]) -> None:
    """Move both window tables by the rows in `pg_temp.changed_rows`.

    Columns there: sign (-1 before, +1 after), event_at, lang, username, length (characters).
    """
    for table in _DIMENSIONS:
        connection.execute(_compose(_APPLY_CHANGES, table))


def prepare_windows(connection: Connection[Any]) -> None:
    """Make the temporary tables that `add_posts` works with, once a connection."""
    for table in _DIMENSIONS:
        connection.execute(_compose(_PREPARE, table))


def add_posts(connection: Connection[Any], posts: "pa.Table") -> None:
    """Move both window tables by posts that are new, as `apply_changes` would.

    Columns of `posts`: event_at, lang, username, length (characters).
    """
    import pyarrow.compute as pc

    window_start = pc.floor_temporal(posts.column("event_at"), unit="minute")
    posts = posts.append_column("window_start", window_start)
    for table, dimension in _DIMENSIONS.items():
        _add(connection, table, dimension, posts)


def _add(connection: Connection[Any], table: str, dimension: str, posts: "pa.Table") -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    grown = (
        posts.group_by(["window_start", dimension])
        .aggregate([("length", "count"), ("length", "sum")])
        .rename_columns(["window_start", dimension, "toots_count", "total_length"])
        .sort_by([("window_start", "ascending"), (dimension, "ascending")])
    )
    named = grown.rename_columns(["window_start", "name", "toots_count", "total_length"])
    copy_arrow(
        connection,
        sql.Identifier("pg_temp", f"grown_{table}"),
        named.append_column("place", pa.array(range(len(grown)), pa.int32())),
    )
    statement = _compose(_GROW, table)
    there = [place for (place,) in connection.execute(statement)]
    is_new = np.ones(len(grown), bool)
    is_new[there] = False
    new = grown.filter(pa.array(is_new))
    window_end = pc.add(new.column("window_start"), timedelta(minutes=1))
    copy_arrow(
        connection, sql.Identifier(SCHEMA, table), new.append_column("window_end", window_end)
    )


def rebuild_windows(connection: Connection[Any], table: Table) -> int:
    """Make a window table what `toots_raw` says, in the caller's transaction; rows changed."""
    take_write_lock(connection)
    return replace_rows(connection, table, _compose(_OF_ALL, table.name))


def _compose(statement: Any, table: str) -> sql.Composed:
    return sql.SQL(statement).format(
        table=sql.Identifier(SCHEMA, table),
        dimension=sql.Identifier(_DIMENSIONS[table]),
        grown=sql.Identifier(f"grown_{table}"),
    )
