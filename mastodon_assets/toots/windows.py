"""One-minute windows: moved by what a batch changed, or rebuilt from `toots_raw`.

What belongs here: what a window is. Both ways give the same rows; a check compares their sum with
the rows of `toots_raw`.
"""

from typing import Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.database import replace_rows, take_write_lock
from mastodon_assets.warehouse.registry import (
    SCHEMA,
    TOOT_METRICS_WINDOWED,
    USER_AVG_LENGTH_WINDOWED,
    Table,
)

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


def apply_changes(connection: Connection[Any]) -> None:
    """Move both window tables by the rows in `pg_temp.changed_rows`.

    Columns there: sign (-1 before, +1 after), event_at, lang, username, length (characters).
    """
    for table in (TOOT_METRICS_WINDOWED, USER_AVG_LENGTH_WINDOWED):
        connection.execute(_compose(_APPLY_CHANGES, table))


def rebuild_windows(connection: Connection[Any], table: Table) -> int:
    """Make a window table what `toots_raw` says, in the caller's transaction; rows changed."""
    take_write_lock(connection)
    return replace_rows(connection, table, _compose(_OF_ALL, table))


def _compose(statement: Any, table: Table) -> sql.Composed:
    return sql.SQL(statement).format(
        table=sql.Identifier(SCHEMA, table.name),
        dimension=sql.Identifier(_DIMENSIONS[table.name]),
    )
