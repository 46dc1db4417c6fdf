from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.batch import tables
from mastodon_assets.batch.refresh import Refreshed, refresh_batch_table
from mastodon_assets.batch.tables import BATCH_TABLES, block_ranges, jdbc_options
from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets_tests.support.records import TOPIC, on_partition, staged, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Rows = Callable[[str], list[Any]]


def _toots() -> list[Any]:
    day, next_day = "2026-11-19", "2026-11-20"
    return [
        upsert("1", created_at=f"{day}T23:59:59Z", content="four", hashtags=["a", "b"]),
        upsert("2", created_at=f"{next_day}T00:00:00Z", content="sixsix", hashtags=["a"]),
        upsert("3", created_at=f"{next_day}T00:59:59Z", content="", hashtags=["b"], language=None),
        upsert("4", created_at=f"{next_day}T01:00:00Z", content="😀", username="bob@one.example"),
        upsert("5", created_at="2026-12-24T00:00:00Z", content="dated in the future", hashtags=[]),
    ]


@pytest.fixture(scope="module")
def stored(database_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    topic = TopicState(TOPIC, "topic-id", {0: 0}, {0: 5})
    with connect(database_url) as connection:
        with connection.transaction():
            open_ledger(connection, topic, accept_data_loss=False)
        prepare_session(connection)
        connection.commit()
        with connection.transaction():
            write_batch(connection, staged(on_partition(_toots())), {TOPIC: "topic-id"})
        yield connection


@pytest.fixture(scope="module")
def rows(spark: "SparkSession", database_url: SecretStr, stored: psycopg.Connection[Any]) -> Rows:
    def refreshed(name: str) -> list[Any]:
        refresh_batch_table(lambda: spark, database_url, name, min_toots=3)
        with stored.transaction():
            return [
                tuple(str(value) for value in row)
                for row in stored.execute(f"TABLE masto.{name}".encode())
            ]

    return lambda name: sorted(refreshed(name))


def test_active_users_have_enough_toots(rows: Rows) -> None:
    assert rows("batch_active_users") == [("ada@one.example", "4", "7.25")]


def test_hashtags_are_counted_by_the_hour_of_their_event(rows: Rows) -> None:
    assert rows("batch_hashtag_by_hour") == [
        ("2026-11-19 23:00:00+00:00", "a", "1"),
        ("2026-11-19 23:00:00+00:00", "b", "1"),
        ("2026-11-20 00:00:00+00:00", "a", "1"),
        ("2026-11-20 00:00:00+00:00", "b", "1"),
        ("2026-11-20 01:00:00+00:00", "news", "1"),
    ]


def test_a_tie_of_hashtags_shares_the_first_rank(rows: Rows) -> None:
    assert rows("batch_top_hashtag") == [("a", "2", "1"), ("b", "2", "1")]


def test_days_begin_at_midnight_utc_and_the_future_is_now(rows: Rows) -> None:
    assert rows("batch_toots_per_day") == [("2026-11-19", "1"), ("2026-11-20", "4")]
    assert rows("batch_avg_len_per_day") == [("2026-11-19", "4.0"), ("2026-11-20", "6.5")]


def test_languages_are_counted_by_day(rows: Rows) -> None:
    assert rows("batch_toots_by_lang_per_day") == [
        ("2026-11-19", "en", "1"),
        ("2026-11-20", "en", "3"),
        ("2026-11-20", "und", "1"),
    ]


def test_a_refresh_reads_no_posts_and_a_rebuild_corrects_a_wrong_row(
    spark: "SparkSession", database_url: SecretStr, rows: Rows, stored: psycopg.Connection[Any]
) -> None:
    for name, batch in BATCH_TABLES.items():
        right = rows(name)
        again = refresh_batch_table(lambda: spark, database_url, name, min_toots=3)
        assert again == Refreshed(0, is_from_all=False)
        with stored.transaction():
            stored.execute(f"DELETE FROM masto.{batch.sums.table.name}".encode())  # noqa: S608
        rebuilt = refresh_batch_table(lambda: spark, database_url, name, min_toots=3, rebuild=True)
        assert rebuilt.is_from_all
        assert rebuilt.rows_changed >= len(right)
        assert rows(name) == right


def test_the_jdbc_url_has_host_and_tls_but_never_the_password() -> None:
    options = jdbc_options(
        SecretStr("postgresql://ada:p%40ss%2Fword@[::1]:5433/toots?sslmode=verify-full")
    )
    assert options["url"] == "jdbc:postgresql://[::1]:5433/toots"
    assert (options["user"], options["password"]) == ("ada", "p@ss/word")
    assert options["sslmode"] == "verify-full"


def test_no_toots_give_empty_tables(spark: "SparkSession", fresh_database_url: SecretStr) -> None:
    for name in BATCH_TABLES:
        refreshed = refresh_batch_table(
            lambda: spark, fresh_database_url, name, min_toots=3, rebuild=True
        )
        assert refreshed == Refreshed(0, is_from_all=True)


def testblock_ranges_cover_every_block_once_and_the_last_has_no_end() -> None:
    assert block_ranges(0) == block_ranges(10) == ["ctid >= '(0,0)'::tid"]
    parts = block_ranges(20_000)
    assert len(parts) == 3
    assert parts[1] == "ctid >= '(8192,0)'::tid AND ctid < '(16384,0)'::tid"
    assert parts[2] == "ctid >= '(16384,0)'::tid"
    assert len(block_ranges(10**7)) == 64


def testblock_ranges_are_read_in_the_snapshot_of_the_connection(
    spark: "SparkSession",
    database_url: SecretStr,
    stored: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        tables, "block_ranges", lambda _blocks: ["ctid < '(0,3)'::tid", "ctid >= '(0,3)'::tid"]
    )
    with transaction(database_url, snapshot=True) as connection:
        toots = tables.read_toots(spark, database_url, connection)
        with stored.transaction():
            stored.execute("UPDATE masto.toots_raw SET lang = 'later'")
        assert sorted(row.lang for row in toots.collect()) == ["en", "en", "en", "en", "und"]
    with stored.transaction():
        stored.execute("UPDATE masto.toots_raw SET lang = 'en'")
