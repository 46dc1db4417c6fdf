"""Rows for the dashboard's views, and the dashboard served in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection

from mastodon_assets.config.settings import Settings
from mastodon_assets.dashboard.server import build_server
from mastodon_assets_tests.support.hourly_rows import sum_days
from mastodon_assets_tests.support.ports import free_port

PASSWORD = "a password for tests"
DAYS = 8
# Of each language per hour.
PER_HOUR = {"en": 6, "de": 3, "ar": 1}
_SECONDS_TO_START = 30


def fill(connection: Connection[Any], now: datetime | None = None) -> None:
    """Insert numbers per minute and hour of the last eight days, and what they rest on."""
    now = now or datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    for back in range(60):
        add_minute(connection, now - timedelta(minutes=back), {"en": 2, "de": 1})
    for back in range(DAYS * 24):
        _add_hour(connection, hour - timedelta(hours=back))
    # In both: a test may run while an hour ends.
    for trending in (hour - timedelta(hours=1), hour):
        _add_trends(connection, trending)
    connection.execute(
        "INSERT INTO masto.hourly_deletes (hour, instance, deletes_count, stored_count)"
        " VALUES (%s, 'one.example', 20, 12)",
        (hour,),
    )
    connection.execute(
        "INSERT INTO masto.ingest_sources (instance, source, state, told_at, last_post_at)"
        " VALUES ('one.example', 'public', 'connected', now() + interval '1 hour', now())"
    )
    connection.execute(
        "INSERT INTO masto.stream_gaps"
        " (instance, source, started_at, ended_at, reason, recovered_count, status)"
        " VALUES ('one.example', 'public', now() - interval '2 hours',"
        "         now() - interval '1 hour', 'disconnected', 7, 'partial')"
    )
    sum_days(connection)
    add_model(connection)
    change(connection)


def add_minute(connection: Connection[Any], at: datetime, counts: dict[str, int]) -> None:
    """Posts of a minute, as the stream's transaction counts them."""
    start = at.replace(second=0, microsecond=0)
    for lang, count in counts.items():
        connection.execute(
            "INSERT INTO masto.toot_metrics_windowed AS w"
            " (window_start, window_end, toots_count, total_length, lang)"
            " VALUES (%s, %s, %s, 10, %s)"
            " ON CONFLICT (window_start, lang)"
            " DO UPDATE SET toots_count = w.toots_count + excluded.toots_count",
            (start, start + timedelta(minutes=1), count, lang),
        )


def _add_hour(connection: Connection[Any], hour: datetime) -> None:
    for lang, posts in PER_HOUR.items():
        connection.execute(
            "INSERT INTO masto.hourly_activity (hour, instance, lang, toots_count, accounts_count,"
            " received_1m, received_10m, received_1h, received_1d, received_later)"
            " VALUES (%s, 'one.example', %s, %s, %s, %s, 1, 0, 0, 0)",
            (hour, lang, posts, posts, posts - 1),
        )
        outcomes = {"positive": posts // 2, "negative": posts // 3, "neutral": posts // 6}
        outcomes["unsupported_language"] = posts - sum(outcomes.values())
        for outcome, count in outcomes.items():
            if count:
                _add_outcome(connection, hour, lang, outcome, count)


def _add_outcome(
    connection: Connection[Any], hour: datetime, lang: str, outcome: str, count: int
) -> None:
    connection.execute(
        "INSERT INTO masto.hourly_sentiment"
        " (hour, instance, lang, outcome, toots_count, total_prob_pos)"
        " VALUES (%s, 'one.example', %s, %s, %s, 0)",
        (hour, lang, outcome, count),
    )
    connection.execute(
        "INSERT INTO masto.sentiment_totals AS t"
        " (day, outcome, model_version, toots_count, prob_sum)"
        " VALUES ((%s AT TIME ZONE 'UTC')::date, %s, 'v1', %s, 0)"
        " ON CONFLICT (day, outcome, model_version)"
        " DO UPDATE SET toots_count = t.toots_count + excluded.toots_count",
        (hour, outcome, count),
    )


def _add_trends(connection: Connection[Any], hour: datetime) -> None:
    """Three hashtags of several accounts, and a flood by one."""
    for hashtag, accounts in (("tea", 9), ("مرحبا", 5), ("日本語", 3), ("flood", 1)):
        connection.execute(
            "INSERT INTO masto.hourly_hashtag_accounts (hour, hashtag, accounts_count)"
            " VALUES (%s, %s, %s)",
            (hour, hashtag, accounts),
        )
        add_hashtag(connection, hour, hashtag, posts=40 if hashtag == "flood" else accounts)


def add_hashtag(connection: Connection[Any], hour: datetime, hashtag: str, *, posts: int) -> None:
    """Posts of an hour with a hashtag, half of them positive."""
    connection.execute(
        "INSERT INTO masto.hourly_hashtags (hour, hashtag, instance, lang, toots_count,"
        " accounts_count, n_pos, n_neu, n_neg)"
        " VALUES (%s, %s, 'one.example', 'en', %s, 1, %s, 0, %s)",
        (hour, hashtag, posts, posts // 2, posts - posts // 2),
    )


def add_model(connection: Connection[Any], corpus: str = "synthetic (demo only)") -> None:
    """A champion that was trained on synthetic texts."""
    connection.execute(
        "INSERT INTO masto.sentiment_models"
        " (version, trained_at, metrics, corpus, status, path, status_reason)"
        " VALUES ('v1', now(), %s, %s, 'champion', '/models/v1', 'the first model')",
        (
            '{"auc": 0.87, "rows": 200, "is_synthetic": true, "languages": ["en"],'
            ' "intervals": {"auc": [0.86, 0.88]}}',
            corpus,
        ),
    )


def add_post(
    connection: Connection[Any], id_: int, text: str, *, label: str = "positive", **columns: Any
) -> None:
    """A post of this moment with its label."""
    values = {
        "username": "ada@one.example",
        "lang": "en",
        "hashtags": [],
        "is_sensitive": False,
        **columns,
    }
    connection.execute(
        "INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash,"
        " favourites, reblogs, replies, is_bot, is_sensitive, instance, status_id, uri, username,"
        " lang, hashtags, content_txt)"
        " VALUES (%(id)s, now(), now(), now(), 1, 0, 0, 0, false, %(is_sensitive)s, 'one.example',"
        "         %(status)s, %(uri)s, %(username)s, %(lang)s, %(hashtags)s, %(text)s)",
        {
            **values,
            "id": id_,
            "status": str(id_),
            "uri": f"https://one.example/{id_}",
            "text": text,
        },
    )
    connection.execute(
        "INSERT INTO masto.toots_sentiment"
        " (id, created_at, scored_at, prob_pos, label_bin, lang, label_str, model_version, text)"
        " VALUES (%s, now(), now(), 0.9, 1, %s, %s, 'v1', %s)",
        (id_, values["lang"], label, text),
    )
    change(connection)


def remove_post(connection: Connection[Any], id_: int) -> None:
    """Remove a post and its label, as a delete does."""
    connection.execute("DELETE FROM masto.toots_sentiment WHERE id = %s", (id_,))
    connection.execute("DELETE FROM masto.toots_raw WHERE id = %s", (id_,))
    change(connection)


def change(connection: Connection[Any]) -> None:
    """Record that posts changed, as every transaction that writes them does."""
    connection.execute(
        "UPDATE masto.data_versions SET version = version + 1, changed_at = clock_timestamp()"
        " WHERE dataset = 'toots_raw'"
    )


@contextmanager
def served(settings: Settings, port: int | None = None) -> Iterator[str]:
    """The base URL of the dashboard, served in a thread until the block ends."""
    port = port or free_port()
    server = build_server(settings)
    server.config.host, server.config.port = "127.0.0.1", port
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(_SECONDS_TO_START)
        assert not thread.is_alive()
