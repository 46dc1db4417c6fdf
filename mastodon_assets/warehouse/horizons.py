"""Horizons: days before which rows were removed by retention and are not stored again.

What belongs here: reading and moving them, and SQL that compares with them. Before the horizon of
posts, sums that name persons are removed with the posts; all other sums stay as they are, for good.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Literal, LiteralString

from psycopg import Connection, sql

if TYPE_CHECKING:
    import pyarrow as pa

Dataset = Literal["posts", "windows"]

# The first day that is kept, and its beginning.
_DAY: LiteralString = "(SELECT first_day FROM masto.retention_horizons WHERE dataset = {})"
_SINCE: LiteralString = (
    "(SELECT first_day::timestamp AT TIME ZONE 'UTC' FROM masto.retention_horizons"
    " WHERE dataset = {})"
)
HORIZONS = {
    "posts_day": sql.SQL(_DAY).format(sql.Literal("posts")),
    "posts_since": sql.SQL(_SINCE).format(sql.Literal("posts")),
    "windows_since": sql.SQL(_SINCE).format(sql.Literal("windows")),
}


@dataclass(frozen=True)
class Horizons:
    """The first days that are kept; `date.min` if all are."""

    posts: date
    windows: date


def with_horizons(statement: LiteralString, **parts: sql.Composable) -> sql.Composed:
    """Compose SQL in which `{posts_day}`, `{posts_since}` and `{windows_since}` are horizons."""
    return sql.SQL(statement).format(**HORIZONS, **parts)


def read_horizons(connection: Connection[Any]) -> Horizons:
    """Read the horizons; under the write lock they stay as they are."""
    days = dict(
        connection.execute("SELECT dataset, first_day FROM masto.retention_horizons").fetchall()
    )
    return Horizons(days["posts"], days["windows"])


def move_horizon(connection: Connection[Any], dataset: Dataset, first_day: date) -> bool:
    """Move a horizon forward, under the write lock; return whether it moved."""
    moved = connection.execute(
        "UPDATE masto.retention_horizons SET first_day = %(day)s, moved_at = now()"
        " WHERE dataset = %(dataset)s AND first_day < %(day)s",
        {"dataset": dataset, "day": first_day},
    )
    return moved.rowcount > 0


def without_expired(rows: "pa.Table", first_day: date) -> "pa.Table":
    """Drop the posts of days before `first_day`; deletes and rejected messages stay.

    Args:
        rows: Columns as from `parse.parse_records`.
        first_day: The horizon.
    """
    import pyarrow.compute as pc

    if first_day == date.min:
        return rows
    since = midnight(first_day)
    is_post = pc.and_(
        pc.equal(rows.column("op"), "upsert"), pc.is_null(rows.column("reject_reason"))
    )
    # `event_at`, the earlier of the two, is before the horizon.
    is_old = pc.or_(
        pc.less(rows.column("created_at"), since),
        pc.less(rows.column("received_at"), since - timedelta(minutes=2)),
    )
    return rows.filter(pc.invert(pc.fill_null(pc.and_(is_post, is_old), False)))


def midnight(day: date) -> datetime:
    """Return the beginning of a day, UTC."""
    return datetime.combine(day, time(), UTC)
