"""One-minute windows: updated by the changes of a batch, or rebuilt from `toots_raw`.

What belongs here: what a window is. Both ways give the same rows. A check compares their sum with
the rows of `toots_raw`.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.horizons import midnight
from mastodon_assets.warehouse.post_sums import ALL_POSTS, PostSums
from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.staging import (
    STAGED_LANGUAGE_WINDOWS,
    STAGED_USER_WINDOWS,
    with_staging,
)
from mastodon_assets.warehouse.sum_tables import correct_sums
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
_MINUTE = "date_trunc('minute', event_at, 'UTC') AS window_start"
_END: Mapping[str, LiteralString] = {"window_end": "c.window_start + interval '1 minute'"}
WINDOW_SUMS = {
    TOOT_METRICS_WINDOWED.name: PostSums(
        TOOT_METRICS_WINDOWED,
        f"{_MINUTE}, lang",
        has_length=True,
        derived=_END,
        counted="event_at >= greatest({posts_since}, {windows_since})",
        compared="window_start >= greatest({posts_since}, {windows_since})",
    ),
    # Names persons: what retention removes is subtracted.
    USER_AVG_LENGTH_WINDOWED.name: PostSums(
        USER_AVG_LENGTH_WINDOWED,
        f"{_MINUTE}, username",
        has_length=True,
        derived=_END,
        counted="event_at >= {windows_since}",
        compared="window_start >= {windows_since}",
    ),
}
_STAGING_TABLES = {
    TOOT_METRICS_WINDOWED.name: STAGED_LANGUAGE_WINDOWS,
    USER_AVG_LENGTH_WINDOWED.name: STAGED_USER_WINDOWS,
}

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
    for statement in _ADD_CHANGES:
        connection.execute(statement)


def add_posts(connection: Connection[Any], posts: "pa.Table", first_day: date) -> None:
    """Add new posts to both window tables, with the same result as `apply_changes`.

    Args:
        connection: Its transaction holds the write lock.
        posts: One row per post: event_at, lang, username, length (characters).
        first_day: The horizon of windows: posts of days before it have none.
    """
    import pyarrow.compute as pc

    if first_day > date.min:
        posts = posts.filter(pc.greater_equal(posts.column("event_at"), midnight(first_day)))
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
    """Correct a window table by `toots_raw`, as `correct_sums` does; return the rows corrected."""
    sums = WINDOW_SUMS[table.name]
    return correct_sums(connection, sums.sum_table, lambda _: sums.query(ALL_POSTS))


def _compose(statement: LiteralString, table: str) -> sql.Composed:
    return with_staging(
        statement,
        table=sql.Identifier(SCHEMA, table),
        dimension=sql.Identifier(_DIMENSIONS[table]),
        staged=_STAGING_TABLES[table].identifier,
    )


_ADD_CHANGES = [sums.adding_changes() for sums in WINDOW_SUMS.values()]
