"""The data of the charts and CSV files, read from PostgreSQL as pandas frames.

What belongs here: one reading per chart or file, called with a connection. `charts` draws the
frames, `writers` stores them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from mastodon_assets.reports.periods import shown_days
from mastodon_assets.reports.readings import reading

if TYPE_CHECKING:
    import pandas as pd

TOP_HASHTAGS = 30
_IS_LABEL = sql.SQL("outcome IN ('positive', 'neutral', 'negative')")
# One value: all models that made labels; the champion makes only the next ones.
MODELS = sql.SQL("""
    SELECT coalesce(jsonb_agg(jsonb_build_array(version, corpus) ORDER BY version), '[]') AS models
      FROM (SELECT DISTINCT model_version AS version
              FROM masto.sentiment_totals
             WHERE {is_label}) used
      LEFT JOIN masto.sentiment_models USING (version)
""").format(is_label=_IS_LABEL)


_BY_REASON = sql.SQL("""
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
""").format(models=MODELS, is_label=_IS_LABEL)
_TOP_HASHTAGS = (
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


@reading(_BY_REASON)
def sentiment_by_reason(frame: pd.DataFrame) -> pd.DataFrame:
    """Read the posts per label, and those without one per reason.

    Counts every row of `toots_raw`, as `v_sentiment_daily` does, so both always add up to the
    same posts.

    Returns:
        One row per label or reason that occurs:

        - `label_str`: positive, neutral, negative, unlabelled, in this order.
        - `reason`: None for a label; `not_scored` for a post that was not scored yet.
        - `n`: posts.
        - `first_day`, `last_day`: dates of `event_at`, UTC.
        - `models`, equal in every row: `[version, corpus]` of each model that made labels. The
          corpus is None if the model has no row in `sentiment_models`.
    """
    return frame


@reading(_BY_REASON)
def sentiment_distribution(by_reason: pd.DataFrame) -> pd.DataFrame:
    """Read `sentiment_by_reason` without reasons: `label_str`, `n`; at most four rows."""
    return by_reason.groupby("label_str", sort=False)[["n"]].sum().reset_index()


@reading(
    """
    SELECT day, n_toosts, n_pos, n_neg, n_neu, avg_prob_pos, n_unscored
      FROM masto.v_sentiment_daily
     ORDER BY day
    """
)
def sentiment_daily(frame: pd.DataFrame) -> pd.DataFrame:
    """Read the view `v_sentiment_daily`: its columns, oldest day first."""
    # A column of nulls alone is read as `object`, which has no fixed number of decimals.
    return frame.astype({"avg_prob_pos": "float64"})


@reading(
    """
    SELECT day, n_pos, n_neu, n_neg, n_unscored, n_toosts
      FROM masto.v_sentiment_daily
     ORDER BY day
    """,
    MODELS,
)
def sentiment_every_day(daily: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Read the labels per day that the chart shows, with zeros for days without posts.

    Returns:
        One row per day of `periods.shown_days`: `day` (date, UTC), `n_pos`, `n_neu`, `n_neg`,
        `n_unscored`, `n_toosts` (their sum), `n_earlier`, `n_later`, and `models` as in
        `sentiment_by_reason`.
    """
    return with_models(shown_days(daily, "n_toosts"), models)


@reading("SELECT day, toots_count FROM masto.batch_toots_per_day ORDER BY day")
def toots_every_day(daily: pd.DataFrame) -> pd.DataFrame:
    """Read the posts per day that the chart shows, with zeros for days without posts.

    Returns:
        One row per day of `periods.shown_days`: `day` (date, UTC), `toots_count`, `n_earlier`,
        `n_later`.
    """
    return shown_days(daily, "toots_count")


@reading(_TOP_HASHTAGS)
def top_hashtags(frame: pd.DataFrame) -> pd.DataFrame:
    """Read the 30 most used hashtags; equal counts by name.

    Counts are the sums behind `batch_top_hashtag`, days those of `batch_hashtag_by_hour`.

    Returns:
        One row per hashtag: `hashtag` (without #), `n` (posts). Equal in every row, of all
        hashtags: `all_uses`, `all_hashtags`, `first_day`, `last_day` (dates, UTC).
    """
    return frame


@reading(_TOP_HASHTAGS)
def top_hashtag_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Read `top_hashtags` with the columns `hashtag` and `n` alone."""
    return frame[["hashtag", "n"]]


def with_models(frame: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Add the column `models` of `sentiment_by_reason`, from the frame of `MODELS`."""
    import pandas as pd

    (value,) = models["models"]
    return frame.assign(models=pd.Series([value] * len(frame), dtype="object"))
