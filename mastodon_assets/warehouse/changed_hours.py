"""The marks on hours whose numbers are not up to date: `masto.changed_hours`.

What belongs here: marking, in each transaction that changes posts, scores or deletes. A mark stays
locked until its transaction ends and then has another number of changes, so the refresh in
`hourly` never removes a mark whose posts it has not seen.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.staging import with_staging

if TYPE_CHECKING:
    import pyarrow as pa


def _marking(hours: LiteralString) -> sql.Composed:
    return with_staging(
        """
INSERT INTO masto.changed_hours AS h (hour, changes)
SELECT hour, 1 FROM ({hours}) changed
    ON CONFLICT (hour) DO UPDATE SET changes = h.changes + 1
""",
        hours=with_staging(hours),
    )


_MARK = _marking("SELECT unnest(%s::timestamptz[]) AS hour")
_MARK_CHANGED_POSTS = _marking(
    "SELECT DISTINCT date_trunc('hour', event_at, 'UTC') AS hour FROM {row_changes}"
)
_MARK_SCORED_POSTS = _marking(
    "SELECT DISTINCT date_trunc('hour', event_at, 'UTC') AS hour FROM masto.toots_raw"
    " WHERE id IN (SELECT id FROM {staged_scores})"
)
# A delete that was received later moves a stored one, and a post that is read after its delete
# lets that delete count as one of a stored post.
_MARK_DELETES = _marking(
    """
SELECT DISTINCT date_trunc('hour', deleted_at, 'UTC') AS hour
  FROM (SELECT received_at AS deleted_at FROM {staged_messages} WHERE op = 'delete'
         UNION ALL
        SELECT d.deleted_at
          FROM {staged_messages} s JOIN masto.toots_deleted d USING (instance, status_id)) deletes
"""
)

_MARK_DELETES_OF_REMOVED = _marking(
    """
SELECT DISTINCT date_trunc('hour', d.deleted_at, 'UTC') AS hour
  FROM {tombstoned} JOIN masto.toot_aliases USING (id)
  JOIN masto.toots_deleted d USING (instance, status_id)
"""
)


def mark_new_posts(connection: Connection[Any], posts: "pa.Table") -> None:
    """Mark the hours of posts that were not stored before. Column: event_at."""
    import pyarrow.compute as pc

    hours = pc.floor_temporal(posts.column("event_at"), unit="hour").unique()
    connection.execute(_MARK, (hours.to_pylist(),))


def mark_hours(connection: Connection[Any], hours: Sequence[datetime]) -> None:
    """Mark hours, given by their beginnings."""
    connection.execute(_MARK, (list(hours),))


def mark_changed_posts(connection: Connection[Any]) -> None:
    """Mark the hours of the staged row changes, before and after them."""
    connection.execute(_MARK_CHANGED_POSTS)


def mark_scored_posts(connection: Connection[Any]) -> None:
    """Mark the hours of the posts of the staged scores."""
    connection.execute(_MARK_SCORED_POSTS)


def mark_deletes(connection: Connection[Any]) -> None:
    """Mark the hours of the staged deletes, before their tombstones are stored."""
    connection.execute(_MARK_DELETES)


def mark_deletes_of_removed(connection: Connection[Any]) -> None:
    """Mark the hours of deletes of the posts in `tombstoned`, before their aliases are removed.

    A stored post has a delete if its home shows it again after another server deleted it.
    """
    connection.execute(_MARK_DELETES_OF_REMOVED)
