"""The data of the charts of trends, activity, sentiment by group, servers and lateness.

What belongs here: one reading per chart, from the views that the page and SQL read too. Charts of a
period show the last days with posts, whenever that was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from mastodon_assets.reports.queries import MODELS, with_models
from mastodon_assets.reports.readings import Statement, reading

if TYPE_CHECKING:
    import pandas as pd

SHOWN_TRENDS = 25
SHOWN_LANGUAGES = 20
SHOWN_HASHTAGS = 25
SHOWN_SERVERS = 20
DAYS, HASHTAG_DAYS = 30, 7
_NEWEST_DAY = sql.SQL("(SELECT (max(hour) AT TIME ZONE 'UTC')::date FROM masto.hourly_activity)")


def _sentiment(view: str, name: str, days: int, most: int) -> tuple[Statement, tuple[object, ...]]:
    statement = sql.SQL("""
        WITH rows AS (
            SELECT * FROM masto.{view} WHERE day > {newest} - %s
        ),
        named AS (
            SELECT {name} AS name, sum(n_pos)::bigint AS n_pos, sum(n_neu)::bigint AS n_neu,
                   sum(n_neg)::bigint AS n_neg,
                   sum(n_pos + n_neu + n_neg)::bigint AS n_labelled
              FROM rows GROUP BY 1
        )
        SELECT named.*, counted.*, all_names
          FROM named,
               (SELECT sum(n_toots)::bigint AS n_toots,
                       sum(n_pos + n_neu + n_neg)::bigint AS all_labelled,
                       min(day) AS first_day, max(day) AS last_day FROM rows) counted,
               (SELECT count(*) AS all_names FROM named WHERE n_labelled > 0) numbered
         WHERE n_labelled > 0
         ORDER BY n_labelled DESC, name
         LIMIT %s
        """).format(view=sql.Identifier(view), name=sql.Identifier(name), newest=_NEWEST_DAY)
    return statement, (days, most)


def _by_server(view: str, counts: tuple[str, ...]) -> tuple[Statement, tuple[object, ...]]:
    statement = sql.SQL("""
        WITH named AS (
            SELECT instance, {sums}, min(day) AS first, max(day) AS last
              FROM masto.{view} WHERE day > {newest} - %s GROUP BY 1
        )
        SELECT instance, {counts}, sum(toots_count) OVER ()::bigint AS all_toots,
               count(*) OVER () AS all_servers, min(first) OVER () AS first_day,
               max(last) OVER () AS last_day
          FROM named ORDER BY toots_count DESC, instance LIMIT %s
        """).format(
        view=sql.Identifier(view),
        newest=_NEWEST_DAY,
        counts=sql.SQL(", ").join(map(sql.Identifier, counts)),
        sums=sql.SQL(", ").join(
            sql.SQL("sum({0})::bigint AS {0}").format(sql.Identifier(name)) for name in counts
        ),
    )
    return statement, (DAYS, SHOWN_SERVERS)


@reading(
    (
        """
        SELECT hashtag, accounts, usual_accounts, hour, days_compared,
               count(*) OVER () AS all_trends
          FROM masto.v_hashtag_trends
         ORDER BY score DESC, hashtag
         LIMIT %s
        """,
        (SHOWN_TRENDS,),
    )
)
def hashtag_trends(frame: pd.DataFrame) -> pd.DataFrame:
    """Read the 25 first hashtags of `v_hashtag_trends`.

    Returns:
        One row per hashtag: `hashtag`, `accounts`, `usual_accounts`, and, equal in every row,
        `hour`, `days_compared`, `all_trends`.
    """
    return frame


@reading(
    """
    SELECT weekday, hour_of_day, toots_count, hours_count, mean_toots, first_day, last_day
      FROM masto.v_activity_by_weekday,
           (SELECT (min(hour) AT TIME ZONE 'UTC')::date AS first_day,
                   (max(hour) AT TIME ZONE 'UTC')::date AS last_day
              FROM masto.hourly_activity) hours
     ORDER BY weekday, hour_of_day
    """
)
def activity_by_weekday(frame: pd.DataFrame) -> pd.DataFrame:
    """Read the view `v_activity_by_weekday`: its columns, by weekday and hour.

    Returns:
        Also, equal in every row, `first_day` and `last_day` (dates, UTC).
    """
    return frame


@reading(_sentiment("v_sentiment_by_language", "lang", DAYS, SHOWN_LANGUAGES), MODELS)
def sentiment_by_language(frame: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Read the labels of the last 30 days per language, of all servers.

    Returns:
        One row per language, the 20 with most labelled posts: `name`, `n_pos`, `n_neu`, `n_neg`,
        `n_labelled`, and, equal in every row, `n_toots` and `all_labelled` of all languages,
        `all_names`, `first_day`, `last_day` (dates, UTC), `models` as in
        `queries.sentiment_by_reason`.
    """
    return with_models(frame, models)


@reading(_sentiment("v_sentiment_by_hashtag", "hashtag", HASHTAG_DAYS, SHOWN_HASHTAGS), MODELS)
def sentiment_by_hashtag(frame: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Read the labels of the last 7 days per hashtag: the 25 with most labelled posts.

    Returns:
        Columns as of `sentiment_by_language`.
    """
    return with_models(frame, models)


@reading(_by_server("v_servers", ("toots_count", "deletes_count", "deletes_of_stored")))
def servers(frame: pd.DataFrame) -> pd.DataFrame:
    """Read posts and deletes of the last 30 days per server.

    Returns:
        One row per server, the 20 with most posts: `instance`, `toots_count`, `deletes_count`,
        `deletes_of_stored`, and, equal in every row, `all_toots`, `all_servers`, `first_day`,
        `last_day` (dates, UTC).
    """
    return frame


@reading(
    _by_server(
        "v_lateness",
        (
            "toots_count",
            *("received_1m", "received_10m", "received_1h", "received_1d", "received_later"),
        ),
    )
)
def lateness(frame: pd.DataFrame) -> pd.DataFrame:
    """Read how late the posts of the last 30 days were received, per server.

    Returns:
        One row per server, the 20 with most posts: `instance`, `toots_count`, `received_1m`,
        `received_10m`, `received_1h`, `received_1d`, `received_later`, and, equal in every row,
        `all_toots`, `all_servers`, `first_day`, `last_day` (dates, UTC).
    """
    return frame
