"""One-minute windows: updated by the changes of a batch, or rebuilt from `toots_raw`.

What belongs here: what a window is. Both ways give the same rows. A check compares their sum with
the rows of `toots_raw`.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rows import copy_arrow, replace_rows
from mastodon_assets.warehouse.staging import (
    STAGED_LANGUAGE_WINDOWS,
    STAGED_USER_WINDOWS,
    with_staging,
)
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
_STAGING_TABLES = {
    TOOT_METRICS_WINDOWED.name: STAGED_LANGUAGE_WINDOWS,
    USER_AVG_LENGTH_WINDOWED.name: STAGED_USER_WINDOWS,
}

# A changed row has sign -1 before the change and +1 after it. So an edit updates only what differs,
# and a window whose count becomes 0 is removed.
_APPLY_CHANGES = """
MERGE INTO {table} w
USING (SELECT date_trunc('minute', event_at, 'UTC') AS window_start, {dimension},
              sum(sign) AS toots_count, sum(sign * length) AS total_length
         FROM {row_changes}
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

_FROM_ALL_POSTS = """
SELECT window_start, window_start + interval '1 minute' AS window_end, {dimension}, toots_count,
       total_length
  FROM (SELECT date_trunc('minute', event_at, 'UTC') AS window_start, {dimension},
               count(*) AS toots_count, sum(char_length(content_txt)) AS total_length
          FROM masto.toots_raw
         GROUP BY 1, 2) counted
"""

_ADD_TO_EXISTING = """
UPDATE {table} w
   SET toots_count = w.toots_count + s.toots_count,
       total_length = w.total_length + s.total_length
  FROM {staged} s
 WHERE w.window_start = s.window_start AND w.{dimension} = s.name
RETURNING s.position
"""


def apply_changes(connection: Connection[Any]) -> None:
    """Update both window tables by the staging table `row_changes`."""
    for table in _DIMENSIONS:
        connection.execute(_compose(_APPLY_CHANGES, table))


def add_posts(connection: Connection[Any], posts: "pa.Table") -> None:
    """Add new posts to both window tables, with the same result as `apply_changes`.

    Args:
        connection: Its transaction holds the write lock.
        posts: One row per post: event_at, lang, username, length (characters).
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

    windows = (
        posts.group_by(["window_start", dimension])
        .aggregate([("length", "count"), ("length", "sum")])
        .rename_columns(["window_start", dimension, "toots_count", "total_length"])
        .sort_by([("window_start", "ascending"), (dimension, "ascending")])
    )
    named = windows.rename_columns(["window_start", "name", "toots_count", "total_length"])
    copy_arrow(
        connection,
        _STAGING_TABLES[table].identifier,
        named.append_column("position", pa.array(range(len(windows)), pa.int32())),
    )
    statement = _compose(_ADD_TO_EXISTING, table)
    existing = [position for (position,) in connection.execute(statement)]
    is_new = np.ones(len(windows), bool)
    is_new[existing] = False
    new = windows.filter(pa.array(is_new))
    window_end = pc.add(new.column("window_start"), timedelta(minutes=1))
    copy_arrow(
        connection, sql.Identifier(SCHEMA, table), new.append_column("window_end", window_end)
    )


def rebuild_windows(connection: Connection[Any], table: Table) -> int:
    """Rebuild a window table from `toots_raw` in the caller's transaction; return rows changed."""
    take_write_lock(connection)
    return replace_rows(connection, table, _compose(_FROM_ALL_POSTS, table.name))


def _compose(statement: LiteralString, table: str) -> sql.Composed:
    return with_staging(
        statement,
        table=sql.Identifier(SCHEMA, table),
        dimension=sql.Identifier(_DIMENSIONS[table]),
        staged=_STAGING_TABLES[table].identifier,
    )
