"""What the charts and CSV files show, read from PostgreSQL as pandas frames.

What belongs here: one SELECT a chart or file. How it looks stands in `charts`, how it is stored in
`files`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection

TOP_HASHTAGS = 30
_IS_LABEL = sql.SQL("outcome IN ('positive', 'neutral', 'negative')")
# One value: the models that made the labels, not only the champion, which makes the next ones.
_MODELS = sql.SQL("""
    SELECT coalesce(jsonb_agg(jsonb_build_array(version, corpus) ORDER BY version), '[]')
      FROM (SELECT DISTINCT model_version AS version
              FROM masto.sentiment_totals
             WHERE {is_label}) used
      LEFT JOIN masto.sentiment_models USING (version)
""").format(is_label=_IS_LABEL)


def sentiment_by_reason(connection: Connection[Any]) -> pd.DataFrame:
    """Posts a label; those without one stand as `unlabelled`, a row a reason.

    Counts every row of `toots_raw`, as `v_sentiment_daily` does, so both always add up to the
    same posts. Columns: `label_str` (positive, neutral, negative, unlabelled, in this order),
    `reason` (None for a label; `not_scored` for a post that scoring has not seen yet), `n`,
    `first_day` and `last_day` (dates of `event_at`, UTC); and of all labels, the same in every
    row: `models` (`[version, corpus]` of each model that made some; no corpus without a row in
    `sentiment_models`). Only what occurs has a row.
    """
    return _frame(
        connection,
        sql.SQL("""
        SELECT label_str, reason, sum(toots_count)::bigint AS n,
               min(day) AS first_day, max(day) AS last_day,
               ({models}) AS models
          FROM (SELECT day, toots_count,
                       CASE WHEN {is_label} THEN outcome ELSE 'unlabelled' END AS label_str,
                       CASE WHEN {is_label} THEN NULL ELSE outcome END AS reason
                  FROM masto.sentiment_totals) posts
         GROUP BY label_str, reason
         ORDER BY array_position(
                      ARRAY['positive', 'neutral', 'negative', 'unlabelled'], label_str),
                  n DESC, reason COLLATE "C"
        """).format(models=_MODELS, is_label=_IS_LABEL),
    )


def sentiment_distribution(connection: Connection[Any]) -> pd.DataFrame:
    """`sentiment_by_reason` without reasons. Columns: `label_str`, `n`; at most four rows."""
    by_reason = sentiment_by_reason(connection)
    return by_reason.groupby("label_str", sort=False)[["n"]].sum().reset_index()


def sentiment_daily(connection: Connection[Any]) -> pd.DataFrame:
    """The view `v_sentiment_daily` as it is: its columns, oldest day first."""
    frame = _frame(
        connection,
        """
        SELECT day, n_toosts, n_pos, n_neg, n_neu, avg_prob_pos, n_unscored
          FROM masto.v_sentiment_daily
         ORDER BY day
        """,
    )
    # All null would be read as `object`, and then has no fixed number of decimals.
    return frame.astype({"avg_prob_pos": "float64"})


def sentiment_every_day(connection: Connection[Any]) -> pd.DataFrame:
    """Labels a day, with zeros for the days between first and last that have no post.

    Columns: `day` (date, UTC), `n_pos`, `n_neu`, `n_neg`, `n_unscored`, `n_toosts` (their sum),
    and `models` as in `sentiment_by_reason`.
    """
    return _frame(
        connection,
        sql.SQL("""
        WITH daily AS MATERIALIZED (SELECT * FROM masto.v_sentiment_daily)
        SELECT day,
               coalesce(n_pos, 0) AS n_pos,
               coalesce(n_neu, 0) AS n_neu,
               coalesce(n_neg, 0) AS n_neg,
               coalesce(n_unscored, 0) AS n_unscored,
               coalesce(n_toosts, 0) AS n_toosts,
               ({models}) AS models
          FROM (SELECT min(day) + generate_series(0, max(day) - min(day)) AS day FROM daily) days
          LEFT JOIN daily USING (day)
         ORDER BY day
        """).format(models=_MODELS),
    )


def toots_every_day(connection: Connection[Any]) -> pd.DataFrame:
    """Posts a day from `batch_toots_per_day`, with zeros for the days in between that have none.

    Columns: `day` (date, UTC), `toots_count`.
    """
    return _frame(
        connection,
        """
        SELECT day, coalesce(toots_count, 0) AS toots_count
          FROM (SELECT min(day) + generate_series(0, max(day) - min(day)) AS day
                  FROM masto.batch_toots_per_day) days
          LEFT JOIN masto.batch_toots_per_day USING (day)
         ORDER BY day
        """,
    )


def top_hashtags(connection: Connection[Any]) -> pd.DataFrame:
    """The 30 most used hashtags; equal counts by name.

    Counts are the sums that `batch_top_hashtag` is made from, days those of
    `batch_hashtag_by_hour`.

    Columns: `hashtag` (without #), `n`; and of all hashtags, the same in every row: `all_uses`,
    `all_hashtags`, `first_day`, `last_day` (dates, UTC).
    """
    return _frame(
        connection,
        """
        SELECT hashtag, toots_count AS n, all_uses, all_hashtags, first_day, last_day
          FROM masto.hashtag_totals,
               (SELECT sum(toots_count)::bigint AS all_uses, count(*) AS all_hashtags
                  FROM masto.hashtag_totals) counted,
               (SELECT (min(hour) AT TIME ZONE 'UTC')::date AS first_day,
                       (max(hour) AT TIME ZONE 'UTC')::date AS last_day
                  FROM masto.batch_hashtag_by_hour) hours
         ORDER BY n DESC, hashtag
         LIMIT %s
        """,
        (TOP_HASHTAGS,),
    )


def top_hashtag_counts(connection: Connection[Any]) -> pd.DataFrame:
    """`top_hashtags` with the columns `hashtag`, `n` alone."""
    return top_hashtags(connection)[["hashtag", "n"]]


def _frame(
    connection: Connection[Any],
    statement: LiteralString | sql.Composed,
    parameters: tuple[object, ...] = (),
) -> pd.DataFrame:
    import pandas as pd

    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement, parameters or None)
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        return pd.DataFrame(cursor.fetchall(), columns=names)
