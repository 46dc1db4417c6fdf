"""The newest posts with their labels, for whoever moderates."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from mastodon_assets.dashboard.filters import Scope

MOST_POSTS = 50
# Filters search in that many of the newest posts; a rare language must not read the whole table.
SEARCHED = 5_000
_LONGEST_TEXT = 2_000

_POSTS: LiteralString = """
SELECT n.event_at, n.username, n.instance, n.lang, n.hashtags, n.is_sensitive, n.is_bot,
       n.edited_at, left(n.content_txt, %(longest)s) AS text,
       length(n.content_txt) > %(longest)s AS is_cut,
       s.label_str AS label, s.prob_pos, s.reason, s.model_version, m.path AS model_path
  FROM (SELECT * FROM masto.toots_raw
         WHERE event_at < %(end)s
           AND (%(start)s::timestamptz IS NULL OR event_at >= %(start)s)
         ORDER BY event_at DESC LIMIT %(searched)s) n
  LEFT JOIN masto.toots_sentiment s USING (id)
  LEFT JOIN masto.sentiment_models m ON m.version = s.model_version
 WHERE (%(language)s::text IS NULL OR lower(n.lang) = %(language)s)
   AND (%(server)s::text IS NULL OR n.instance = %(server)s)
   AND (%(hashtag)s::text IS NULL OR %(hashtag)s = ANY (n.hashtags))
 ORDER BY n.event_at DESC LIMIT %(most)s"""


@dataclass(frozen=True)
class Post:
    """A post as the page shows it: plain text, and its label or the reason why it has none."""

    event_at: datetime
    username: str
    instance: str
    lang: str
    hashtags: list[str]
    is_sensitive: bool
    is_bot: bool
    edited_at: datetime | None
    text: str
    is_cut: bool
    label: str | None
    prob_pos: float | None
    reason: str | None
    model_version: str | None
    model_path: str | None


def read_posts(connection: Connection[Any], scope: Scope) -> list[Post]:
    """Read the newest posts that match; deleted ones are not in the table any more."""
    filters = scope.filters
    with connection.cursor(row_factory=class_row(Post)) as cursor:
        return cursor.execute(
            _POSTS,
            {
                "start": scope.start,
                "end": scope.end,
                "language": filters.language,
                "server": filters.server,
                "hashtag": filters.hashtag,
                "searched": SEARCHED,
                "most": MOST_POSTS,
                "longest": _LONGEST_TEXT,
            },
        ).fetchall()
