"""Rows for the tests of charts and CSV files."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from psycopg import Connection

from mastodon_assets_tests.support.hourly_rows import sum_days

MONDAY = date(2026, 10, 5)
# Scripts, markup, lengths and marks that break labels.
ODD_HASHTAGS = [
    "مرحبا_بالعالم",
    "日本語",
    "日" * 60,
    "한국어",
    "🎉party",
    "$x$",
    "$\\frac{$",
    "<b>bold</b>",
    "W" * 200,
    "नमस्ते",
    "Ελλάδα",
    "x\u202ey",
    "a\u0301" * 50,
    "עברית" * 20,
]


@dataclass(frozen=True)
class Post:
    """`count` equal posts of a day; `label` is a label, a reason, or None if never scored."""

    day: date
    label: str | None
    count: int = 1
    model: str = "v1"


def insert_posts(connection: Connection[Any], posts: list[Post]) -> None:
    """Rows of `toots_raw`, `toots_sentiment` and, as the batch asset has it, toots per day."""
    last_id = 0
    for post in posts:
        ids = list(range(last_id + 1, last_id + 1 + post.count))
        last_id += post.count
        noon = datetime.combine(post.day, time(12), UTC)
        connection.execute(
            """
            INSERT INTO masto.toots_raw
                (id, created_at, received_at, event_at, payload_hash, favourites, reblogs,
                 replies, is_bot, is_sensitive, instance, status_id, uri, username, lang,
                 hashtags, content_txt)
            SELECT id, %(at)s, %(at)s, %(at)s, 0, 0, 0, 0, false, false, 'example.social', id::text,
                   'https://example.social/' || id, 'a@example.social', 'en', '{}', 'text'
              FROM unnest(%(ids)s::bigint[]) id
            """,
            {"at": noon, "ids": ids},
        )
        if post.label is not None:
            _insert_scores(connection, ids, post.label, post.model)
    connection.execute(
        """
        INSERT INTO masto.batch_toots_per_day
        SELECT (event_at AT TIME ZONE 'UTC')::date, count(*) FROM masto.toots_raw GROUP BY 1
        """
    )
    # A rebuild of the roll-ups commits; here all is rolled back after the test.
    connection.execute(
        """
        INSERT INTO masto.sentiment_totals
            (day, outcome, model_version, toots_count, prob_sum)
        SELECT (post.event_at AT TIME ZONE 'UTC')::date,
               coalesce(label_str, reason, 'not_scored'), coalesce(model_version, ''),
               count(*), coalesce(sum(prob_pos::numeric), 0)
          FROM masto.toots_raw post LEFT JOIN masto.toots_sentiment USING (id)
         GROUP BY 1, 2, 3
        """
    )


def insert_hourly(connection: Connection[Any], days: int) -> None:
    """Rows of the hourly tables: an hour per day until 2024-10-07, over on every machine's clock.

    One server, one language; the odd hashtags are used by 3 accounts, in the last hour by 9.
    """
    last = datetime(2024, 10, 7, 12, tzinfo=UTC)
    for day in range(days):
        hour = last - timedelta(days=day)
        connection.execute(
            "INSERT INTO masto.hourly_activity VALUES (%s, 20, 9, 16, 1, 1, 1, 1, 'one', 'en')",
            (hour,),
        )
        connection.execute(
            "INSERT INTO masto.hourly_sentiment VALUES (%(hour)s, 8, 'one', 'en', 'positive', 7),"
            " (%(hour)s, 4, 'one', 'en', 'negative', 1), (%(hour)s, 8, 'one', 'en', 'no_words', 0)",
            {"hour": hour},
        )
        connection.execute(
            "INSERT INTO masto.hourly_hashtags"
            " SELECT %s, 8, 3, 3, 2, 1, hashtag, 'one', 'en' FROM unnest(%s::text[]) hashtag",
            (hour, ODD_HASHTAGS),
        )
        connection.execute(
            "INSERT INTO masto.hourly_hashtag_accounts"
            " SELECT %s, %s, hashtag FROM unnest(%s::text[]) hashtag",
            (hour, 3 if day else 9, ODD_HASHTAGS),
        )
        connection.execute("INSERT INTO masto.hourly_deletes VALUES (%s, 2, 1, 'one')", (hour,))
    sum_days(connection)


def insert_model(connection: Connection[Any], version: str, corpus: str, status: str) -> None:
    """A row of `sentiment_models`."""
    connection.execute(
        "INSERT INTO masto.sentiment_models VALUES (%s, now(), '{}', %s, %s, '/models')",
        (version, corpus, status),
    )


def _insert_scores(connection: Connection[Any], ids: list[int], label: str, model: str) -> None:
    probability = {"positive": 0.9, "neutral": 0.5, "negative": 0.2}.get(label)
    scored = (
        (None, None, None, label, model)
        if probability is None
        else (probability, int(probability >= 0.5), label, None, model)
    )
    connection.execute(
        """
        INSERT INTO masto.toots_sentiment
            (id, created_at, scored_at, prob_pos, label_bin, lang, label_str, reason,
             model_version, text)
        SELECT id, created_at, created_at, %s, %s, lang, %s, %s, %s, content_txt
          FROM masto.toots_raw
         WHERE id = ANY(%s)
        """,
        (*scored, ids),
    )


def insert_hashtags(
    connection: Connection[Any], counts: dict[str, int], day: date = MONDAY
) -> None:
    """Each hashtag with its uses, in all and spread over two hours of `day`."""
    hour = datetime.combine(day, time(9), UTC)
    for hashtag, count in counts.items():
        connection.execute(
            "INSERT INTO masto.hashtag_totals AS t VALUES (%s, %s) ON CONFLICT (hashtag)"
            " DO UPDATE SET toots_count = t.toots_count + excluded.toots_count",
            (hashtag, count),
        )
        parts = {hour: count - count // 2, hour + timedelta(hours=1): count // 2}
        for at, part in parts.items():
            if part:
                connection.execute(
                    "INSERT INTO masto.batch_hashtag_by_hour VALUES (%s, %s, %s)",
                    (at, hashtag, part),
                )
