"""The tables, filled from Kafka by the merge itself, without Spark."""

from typing import Any

import psycopg

from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import OffsetRange, prepare_session, write_batch
from mastodon_assets_tests.support.mock_broker import broker_of
from mastodon_assets_tests.support.records import Record, staged


class MergedTables:
    """The tables, into which what is new in Kafka is merged."""

    def __init__(self, settings: Settings, connection: psycopg.Connection[Any]) -> None:
        self._broker = broker_of(settings)
        self._topic = settings.kafka_topic
        self._connection = connection
        state = read_topic(settings, self._topic)
        with connection.transaction():
            open_ledger(connection, state, accept_data_loss=False)
        prepare_session(connection)
        connection.commit()
        self._topic_id = state.topic_id
        self._read = dict.fromkeys(state.end, 0)

    def merge(self) -> None:
        records = [
            Record(partition, offset, value)
            for partition, offset, value in self._broker.records(self._topic)
            if offset >= self._read[partition]
        ]
        if not records:
            return
        ranges = []
        for partition in {record.partition for record in records}:
            end = max(each.offset for each in records if each.partition == partition) + 1
            ranges.append(OffsetRange(self._topic, partition, self._read[partition], end))
            self._read[partition] = end
        rows = staged(records, topic=self._topic)
        with self._connection.transaction():
            write_batch(self._connection, rows, {self._topic: self._topic_id}, ranges=ranges)

    def uris(self) -> set[str]:
        with self._connection.transaction():
            return {uri for (uri,) in self._connection.execute("SELECT uri FROM masto.toots_raw")}
