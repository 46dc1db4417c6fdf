"""What people write about: hashtags that more accounts use than usual."""

from typing import Any, LiteralString

from psycopg import Connection

from mastodon_assets.dashboard.charts.bars import Bar, horizontal_bars
from mastodon_assets.dashboard.filters import Scope
from mastodon_assets.dashboard.views.base import (
    Column,
    Condition,
    Content,
    Figure,
    Grid,
    View,
    fetch,
    moment,
    newest_post,
)

_MOST_BARS = 12
_COLUMNS = (
    Column("hashtag", "hashtag", "tag"),
    Column("hour", "hour (UTC)", "time"),
    Column("accounts", "accounts"),
    Column("usual_accounts", "usual accounts", "decimal"),
    Column("days_compared", "days compared"),
    Column("ratio", "times the usual", "decimal"),
    Column("score", "score", "decimal"),
)
_TRENDS: LiteralString = """
SELECT hashtag, hour, accounts, usual_accounts, days_compared, ratio, score::double precision
  FROM masto.v_hashtag_trends WHERE {where} ORDER BY score DESC, hashtag LIMIT 100"""


def read_trends(connection: Connection[Any], scope: Scope) -> Content:
    """Read the hashtags that more accounts than usual used in the newest complete hour."""
    condition = Condition().add("hashtag = %(hashtag)s", hashtag=scope.filters.hashtag)
    rows = fetch(connection, _TRENDS, condition)
    if not rows:
        empty = (
            "No data yet: no post has reached the tables."
            if newest_post(connection) is None
            else "No hashtag is used by more accounts than usual (at least 3)."
        )
        return Content(Grid(_COLUMNS, []), empty=empty, notes=_NOTES)
    hour, compared = rows[0][1], rows[0][4]
    bars = [
        Bar(f"#{row[0]}", float(row[2]), _label(row[2], row[3]), mark=row[3] or 0.0)
        for row in rows[:_MOST_BARS]
    ]
    named = ", ".join(f"#{row[0]} ({row[2]} accounts, usual {row[3] or 0:.1f})" for row in rows[:5])
    summary = f"Trending hashtags in the hour from {hour:%d %b, %H:%M} UTC: {named}."
    when = moment(hour, scope.now)
    return Content(
        Grid(_COLUMNS, rows),
        draw=lambda width: horizontal_bars(
            width, bars, summary, mark_name="usual: the same hour of earlier days"
        ),
        summary=summary,
        notes=[
            f"The complete hour from {when}, against the same hour of {compared} earlier"
            f" day{'' if compared == 1 else 's'}.",
            *_NOTES,
        ],
        figures=[Figure("trending", f"#{rows[0][0]}", f"{rows[0][2]} accounts, {when}")],
    )


_NOTES = (
    "Different accounts are counted, not posts: one account alone makes no trend. At least 3"
    " accounts. Of all servers and languages, whatever the filters.",
)


def _label(accounts: int, usual: float | None) -> str:
    if not usual:
        return f"{accounts:,} · new"
    return f"{accounts:,} · {accounts / usual:.1f}×"


TRENDS = View(
    "trends",
    "Trending hashtags",
    "Which hashtags do more accounts use than usual?",
    "v_hashtag_trends",
    read_trends,
    follows="answers",
    applies=("hashtag",),
    has_period=False,
)
