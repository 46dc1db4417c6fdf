"""Roll-ups: sums per day and outcome, `masto.sentiment_totals`, which view and charts read.

What belongs here: updating the sums in each transaction that changes posts or scores, and
rebuilding them. Both give the same rows: counts and decimals add up to the same in any order.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.changed_hours import mark_scored_posts
from mastodon_assets.warehouse.horizons import with_horizons
from mastodon_assets.warehouse.staging import with_staging
from mastodon_assets.warehouse.sum_tables import SumTable, correct_sums
from mastodon_assets.warehouse.tables import SENTIMENT_TOTALS
from mastodon_assets.warehouse.watermarks import bump_toots_version

if TYPE_CHECKING:
    import pyarrow as pa

_SUM_TABLE = SumTable(SENTIMENT_TOTALS, ("prob_sum",), compared="day >= {posts_day}")
# The columns of the sums for a post and its score.
_OUTCOME = """
(toot.event_at AT TIME ZONE 'UTC')::date AS day,
CASE WHEN score.id IS NULL THEN 'not_scored' ELSE coalesce(score.label_str, score.reason)
     END AS outcome,
coalesce(score.model_version, '') AS model_version,
coalesce(score.prob_pos::numeric, 0) AS prob
"""
_SUMS = """
SELECT day, outcome, model_version, {sign} * count(*) AS toots_count, {sign} * sum(prob) AS prob_sum
  FROM (SELECT {outcome} FROM {toots}) counted
 GROUP BY day, outcome, model_version
"""
_DIFFERENT_DAYS = """
SELECT DISTINCT day
  FROM ({sums}) computed
  FULL JOIN (SELECT * FROM masto.sentiment_totals
              WHERE day >= {posts_day}
                AND (%(days)s::date[] IS NULL OR day = ANY(%(days)s))) stored
 USING (day, outcome, model_version)
 WHERE (computed.toots_count, computed.prob_sum)
       IS DISTINCT FROM (stored.toots_count, stored.prob_sum)
 ORDER BY day
"""

_ALL = """
masto.toots_raw toot LEFT JOIN masto.toots_sentiment score USING (id)
 WHERE toot.event_at >= {posts_since}
"""
_STAGED = """
masto.toots_raw toot LEFT JOIN masto.toots_sentiment score USING (id)
 WHERE toot.event_at >= {posts_since} AND toot.id IN (SELECT id FROM {staged_scores})
"""
# OFFSET 0 keeps it one look-up per post: the planner does not know how few posts a few days have,
# and would read all scores.
_OF_DAYS = """
unnest(%(days)s::date[]) day
  JOIN masto.toots_raw toot ON toot.event_at >= day::timestamp AT TIME ZONE 'UTC'
                           AND toot.event_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
  LEFT JOIN LATERAL (SELECT * FROM masto.toots_sentiment WHERE id = toot.id OFFSET 0) score ON true
"""
_BEFORE_CHANGE = """
(SELECT * FROM {row_changes} WHERE sign = -1 AND event_at >= {posts_since}) toot
LEFT JOIN masto.toots_sentiment score USING (id)
"""
# A new post has no score: only those that were stored before are looked up.
_AFTER_CHANGE = """
(SELECT * FROM {row_changes} WHERE sign = 1 AND event_at >= {posts_since}) toot
LEFT JOIN (SELECT * FROM masto.toots_sentiment
            WHERE id IN (SELECT id FROM {row_changes} WHERE sign = -1)) score USING (id)
"""
# New posts have no score yet.
_ADD_NEW = """
INSERT INTO masto.sentiment_totals AS t (day, outcome, model_version, toots_count, prob_sum)
SELECT day, 'not_scored', '', toots_count, 0
  FROM unnest(%s::date[], %s::bigint[]) added (day, toots_count)
    ON CONFLICT (day, outcome, model_version) DO UPDATE
   SET toots_count = t.toots_count + excluded.toots_count
"""


def subtract_changed(connection: Connection[Any]) -> None:
    """Subtract the posts of the staged row changes as they were, while their scores exist."""
    _move(connection, _BEFORE_CHANGE, sign=-1)


def add_changed(connection: Connection[Any]) -> None:
    """Add the posts of the staged row changes as they are, after outdated scores are gone."""
    _move(connection, _AFTER_CHANGE, sign=1)


def add_new(connection: Connection[Any], posts: "pa.Table") -> None:
    """Add posts that were not stored before. Column: event_at."""
    import pyarrow as pa

    days = posts.column("event_at").cast(pa.date32()).value_counts()
    counts = (days.field("values").to_pylist(), days.field("counts").to_pylist())
    connection.execute(_ADD_NEW, counts)


def subtract_staged(connection: Connection[Any]) -> None:
    """Subtract the posts of the staged scores, before their scores are written."""
    _move(connection, _STAGED, sign=-1)


def add_staged(connection: Connection[Any]) -> None:
    """Add the posts of the staged scores, after their scores were written; mark their hours."""
    _move(connection, _STAGED, sign=1)
    mark_scored_posts(connection)


_MARK_DAYS = with_staging(
    """
UPDATE masto.day_totals SET toots_version = %s
 WHERE day IN (SELECT (r.event_at AT TIME ZONE 'UTC')::date
                 FROM masto.toots_raw r JOIN {staged_scores} s USING (id))
"""
)


def mark_new_labels(connection: Connection[Any]) -> int:
    """Record that posts of `STAGED_SCORES` got other labels; return the new version.

    Charts and files are then due, and the checks compare the days of these posts.
    """
    version = bump_toots_version(connection)
    connection.execute(_MARK_DAYS, (version,))
    return version


def rebuild_rollups(connection: Connection[Any]) -> int:
    """Correct the sums by all posts and scores, as `correct_sums` does; return rows corrected."""
    return correct_sums(connection, _SUM_TABLE, lambda _: _sums(_ALL, sign=1))


def days_that_differ(connection: Connection[Any], days: Sequence[date] | None) -> list[date]:
    """Return those of `days` whose sums differ from posts and scores.

    Args:
        connection: A transaction.
        days: Days from the horizon of posts on; None for all of them.
    """
    toots = _ALL if days is None else _OF_DAYS
    query = with_horizons(_DIFFERENT_DAYS, sums=_sums(toots, sign=1))
    parameter = None if days is None else list(days)
    return [day for (day,) in connection.execute(query, {"days": parameter})]


def _move(connection: Connection[Any], toots: Any, *, sign: int) -> None:
    changes = sql.SQL("({}) summed").format(_sums(toots, sign=sign))
    connection.execute(_SUM_TABLE.adding(changes))


def _sums(toots: Any, *, sign: int) -> sql.Composed:
    return sql.SQL(_SUMS).format(
        sign=sql.Literal(sign), outcome=sql.SQL(_OUTCOME), toots=with_staging(toots)
    )
