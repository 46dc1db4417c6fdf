"""A Kafka broker inside librdkafka: the real protocol, no Java, gone with its fixture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.kafka.client import client_config

STREAM = "mastodon_stream"
ERRORS = "mastodon_errors"


@dataclass(frozen=True)
class Broker:
    """A broker that lives as long as its fixture; it speaks the real protocol."""

    servers: str
    login: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def settings(self, **changes: Any) -> Settings:
        """Settings that read nothing of this machine."""
        values = {
            "kafka_bootstrap_servers": self.servers,
            "database_url": "postgresql://nobody@127.0.0.1:9/nothing",
        }
        return load_settings(_env_file=None, **{**values, **changes})

    def record_keys(self, topic: str = STREAM) -> list[bytes | None]:
        return [key for _, _, key, _ in self._read(topic)]

    def messages(self, topic: str = STREAM) -> list[dict[str, Any]]:
        """All values of the topic; the order within a partition is kept."""
        return [json.loads(value) for _, _, _, value in self._read(topic)]

    def records(self, topic: str = STREAM) -> list[tuple[int, int, bytes]]:
        """Partition, offset and value of all records."""
        return [(partition, offset, value) for partition, offset, _, value in self._read(topic)]

    def _read(self, topic: str) -> list[tuple[int, int, bytes | None, bytes]]:
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "log_level": 0, **self.login, "group.id": "test"}
        )
        try:
            places, waiting = [], 0
            for partition in consumer.list_topics(topic, timeout=5).topics[topic].partitions:
                place = TopicPartition(topic, partition)
                first, end = consumer.get_watermark_offsets(place, timeout=5)
                places.append(TopicPartition(topic, partition, first))
                waiting += end - first
            consumer.assign(places)
            records: list[tuple[int, int, bytes | None, bytes]] = []
            while len(records) < waiting:
                record = consumer.poll(5)
                assert record is not None
                assert record.error() is None
                partition, offset, value = record.partition(), record.offset(), record.value()
                assert partition is not None
                assert offset is not None
                assert value is not None
                records.append((partition, offset, record.key(), value))
            return records
        finally:
            consumer.close()


def broker_of(settings: Settings) -> Broker:
    """The real broker of the settings, to read from it in the same way."""
    return Broker(settings.kafka_servers, client_config(settings))
