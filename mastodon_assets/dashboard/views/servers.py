"""Where posts come from and how late: servers, deletes, lateness."""

from typing import Any, LiteralString

from psycopg import Connection

from mastodon_assets.dashboard.charts.bars import Bar, count_label, horizontal_bars
from mastodon_assets.dashboard.filters import Scope
from mastodon_assets.dashboard.intervals import percent
from mastodon_assets.dashboard.views.base import (
    Column,
    Content,
    Figure,
    Grid,
    View,
    by_hour,
    fetch,
    nothing_yet,
)

_MOST_BARS = 12
_SERVER_COLUMNS = (
    Column("instance", "server", "text"),
    Column("toots_count", "posts"),
    Column("accounts_per_hour", "accounts per hour", "decimal"),
    Column("deletes_count", "deletes reported"),
    Column("deletes_of_stored", "of posts that were read"),
    Column("share_deleted", "share deleted", "share"),
)
# As the view v_servers, for a part of the hours; a filter by day would not reach its tables.
_SERVERS: LiteralString = """
WITH posts AS (
    -- Two steps are faster than `count(DISTINCT hour)`, which sorts.
    SELECT instance, sum(toots_count)::bigint AS toots_count,
           (sum(accounts_count) / count(*))::double precision AS accounts_per_hour
      FROM (SELECT instance, hour, sum(toots_count) AS toots_count,
                   sum(accounts_count) AS accounts_count
              FROM masto.hourly_activity WHERE {where} GROUP BY instance, hour) hours
     GROUP BY instance
),
deletes AS (
    SELECT instance, sum(deletes_count)::bigint AS deletes_count,
           sum(stored_count)::bigint AS deletes_of_stored
      FROM masto.hourly_deletes WHERE {where} GROUP BY instance
)
SELECT instance, coalesce(toots_count, 0), accounts_per_hour,
       coalesce(deletes_count, 0), coalesce(deletes_of_stored, 0),
       coalesce(deletes_of_stored, 0)::double precision
           / nullif(coalesce(toots_count, 0) + coalesce(deletes_of_stored, 0), 0)
  FROM posts FULL JOIN deletes USING (instance)
 ORDER BY 2 DESC, 1"""


def read_servers(connection: Connection[Any], scope: Scope) -> Content:
    """Read posts and deletes per server."""
    rows = fetch(connection, _SERVERS, by_hour(scope))
    if not rows:
        return nothing_yet(connection, _SERVER_COLUMNS, scope)
    bars = [Bar(row[0], float(row[1]), _server_label(row)) for row in rows[:_MOST_BARS]]
    posts, deleted = sum(row[1] for row in rows), sum(row[4] for row in rows)
    shown = deleted_text(posts, deleted)
    share = f" ({shown})" if shown.endswith("%") else ""
    summary = (
        f"{posts:,} posts of {len(rows)} server{'' if len(rows) == 1 else 's'};"
        f" {deleted:,} posts that were read have been deleted{share}."
    )
    return Content(
        Grid(_SERVER_COLUMNS, rows),
        draw=lambda width: horizontal_bars(width, bars, summary),
        summary=summary,
        notes=[
            summary,
            "A server is the one that was read, also for posts of others that it knows. Whether"
            " author or server deleted cannot be known: no server says it.",
            "A delete counts in its own hour, whenever its post was written.",
        ],
        figures=[
            Figure("deleted", shown, f"{deleted:,} posts that were read" if share else "posts")
        ],
        start=scope.first_hour,
    )


def deleted_text(posts: int, deleted: int) -> str:
    """Return the share deleted, of the posts that are there and the deleted ones.

    The number of deletes instead if it is larger than that of posts: most are then of posts that
    were written before, so that a share says nothing.
    """
    if deleted > posts:
        return f"{deleted:,}"
    return percent(deleted / (posts + deleted) if posts else 0.0)


def _server_label(row: tuple[Any, ...]) -> str:
    label = count_label(row[1])
    return label if row[5] is None else f"{label} · {deleted_text(row[1], row[4])} deleted"


_LATENESS = (
    ("received_1m", "within a minute"),
    ("received_10m", "1 to 10 minutes"),
    ("received_1h", "10 to 60 minutes"),
    ("received_1d", "1 to 24 hours"),
    ("received_later", "later"),
)
_LATENESS_COLUMNS = (
    Column("lateness", "received", "text"),
    Column("toots_count", "posts"),
    Column("share", "share", "share"),
)
_LATE: LiteralString = """
SELECT coalesce(sum(received_1m), 0)::bigint, coalesce(sum(received_10m), 0)::bigint,
       coalesce(sum(received_1h), 0)::bigint, coalesce(sum(received_1d), 0)::bigint,
       coalesce(sum(received_later), 0)::bigint
  FROM masto.hourly_activity WHERE {where}"""


def read_lateness(connection: Connection[Any], scope: Scope) -> Content:
    """Read how long after posting the posts were received."""
    (counts,) = fetch(connection, _LATE, by_hour(scope))
    total = sum(counts)
    if not total:
        return nothing_yet(connection, _LATENESS_COLUMNS, scope)
    classes = list(zip(_LATENESS, counts, strict=True))
    bars = [Bar(words, float(n), count_label(n, n / total)) for (_, words), n in classes]
    summary = "Posts by the time from posting to receipt: " + ", ".join(
        f"{words} {percent(n / total)}" for (_, words), n in classes
    )
    return Content(
        Grid(_LATENESS_COLUMNS, [[name, n, n / total] for (name, _), n in classes]),
        table=Grid(_LATENESS_COLUMNS, [[words, n, n / total] for (_, words), n in classes]),
        draw=lambda width: horizontal_bars(width, bars, f"{summary}."),
        summary=f"{summary}.",
        notes=[
            f"n = {total:,} posts. From the time that the author's server claims, or of the last"
            " edit, to receipt here. A history that was imported or recovered counts as late.",
        ],
        start=scope.first_hour,
    )


SERVERS = View(
    "servers",
    "Servers",
    "Where do posts come from, and how many are deleted?",
    "hourly_activity, hourly_deletes",
    read_servers,
    follows="answers",
    applies=("server",),
)
LATENESS = View(
    "lateness",
    "Lateness",
    "How long do posts take to arrive?",
    "hourly_activity",
    read_lateness,
    follows="answers",
    applies=("server",),
)
