"""Batches merged into a database without Spark and Kafka."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from pydantic import SecretStr

from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import BatchCounts, prepare_session, write_batch
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.watermarks import toots_version
from mastodon_assets_tests.support.records import TOPIC, Record, on_partition, staged

PARTITIONS = 3


_EMPTIED = (
    *("toot_aliases", "toots_rejected", "toots_sentiment", "sentiment_totals", "toots_unscored"),
    *("day_totals", "changed_hours", "hourly_activity", "hourly_sentiment", "hourly_hashtags"),
    *("hourly_hashtag_accounts", "hourly_deletes", "daily_sentiment", "daily_hashtags"),
    *("home_ids", "home_questions", "server_names"),
)


_DERIVED = (
    *("toots_raw", "toot_metrics_windowed", "user_avg_length_windowed", "toots_deleted"),
    *("user_totals", "hashtag_totals", "batch_hashtag_by_hour", "batch_toots_per_day"),
    "batch_toots_by_lang_per_day",
    "home_versions",
)


@contextmanager
def opened_sink(database_url: SecretStr) -> Iterator["Sink"]:
    """A sink on a migrated database whose ledger is at the beginning of the topic."""
    partitions = range(PARTITIONS)
    state = TopicState(
        TOPIC, "topic-id", dict.fromkeys(partitions, 0), dict.fromkeys(partitions, 10**6)
    )
    with connect(database_url) as connection:
        with connection.transaction():
            open_ledger(connection, state, accept_data_loss=False)
        prepare_session(connection)
        connection.commit()
        yield Sink(connection)


class Sink:
    """A database with an empty ledger of three partitions, and the offsets each has reached."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.next = dict.fromkeys(range(PARTITIONS), 0)

    def write(self, *messages: Any, partition: int = 0) -> BatchCounts:
        records = on_partition(messages, partition, self.next[partition])
        return self.write_records(records)

    def write_records(self, records: Sequence[Record], keep_payloads: bool = False) -> BatchCounts:
        with self.connection.transaction():
            rows = staged(records, keep_payloads=keep_payloads)
            counts = write_batch(self.connection, rows, {TOPIC: "topic-id"})
        for record in records:
            self.next[record.partition] = max(self.next[record.partition], record.offset + 1)
        return counts

    def rows(self, query: str) -> list[Any]:
        with self.connection.transaction():
            return self.connection.execute(query.encode()).fetchall()

    def version(self) -> int:
        with self.connection.transaction():
            return toots_version(self.connection)

    def tables(self) -> dict[str, list[Any]]:
        return {name: sorted(self.rows(f"TABLE masto.{name}")) for name in _DERIVED}

    def read(self, names: Mapping[str, str]) -> None:
        """Name the servers that are read; their uris end in the ids of posts.

        Args:
            names: Host or domain to the server.
        """
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO masto.server_names (name, instance, has_ids) VALUES (%s, %s, true)",
                list(names.items()),
            )

    def empty(self) -> None:
        with self.connection.transaction():
            for name in (*_DERIVED, *_EMPTIED):
                self.connection.execute(f"TRUNCATE masto.{name} CASCADE".encode())
            self.connection.execute("UPDATE masto.kafka_offsets SET next_offset = 0")
        self.next = dict.fromkeys(self.next, 0)
