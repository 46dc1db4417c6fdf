"""A Kafka broker inside librdkafka, recorded statuses, and cursors without a database."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.ingest import checkpoint, supervisor
from mastodon_assets.ingest.recovery.cursors import Cursor
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets_tests.support.documents import RECORDED

LEFT_AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
STREAM, ERRORS = "mastodon_stream", "mastodon_errors"


@dataclass(frozen=True)
class Broker:
    """A broker that lives as long as its fixture; it speaks the real protocol."""

    servers: str

    def settings(self, **changes: Any) -> Settings:
        """Settings that read nothing of this machine."""
        values = {
            "kafka_bootstrap_servers": self.servers,
            "database_url": "postgresql://nobody@127.0.0.1:9/nothing",
        }
        return load_settings(_env_file=None, **{**values, **changes})

    def record_keys(self, topic: str = STREAM) -> list[bytes | None]:
        return [key for key, _ in self._read(topic)]

    def messages(self, topic: str = STREAM) -> list[dict[str, Any]]:
        """All values of the topic; the order within a partition is kept."""
        return [json.loads(value) for _, value in self._read(topic)]

    def _read(self, topic: str) -> list[tuple[bytes | None, bytes]]:
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "test", "log_level": 0})
        try:
            places, waiting = [], 0
            for partition in consumer.list_topics(topic, timeout=5).topics[topic].partitions:
                place = TopicPartition(topic, partition)
                first, end = consumer.get_watermark_offsets(place, timeout=5)
                places.append(TopicPartition(topic, partition, first))
                waiting += end - first
            consumer.assign(places)
            records: list[tuple[bytes | None, bytes]] = []
            while len(records) < waiting:
                record = consumer.poll(5)
                assert record is not None
                assert record.error() is None
                value = record.value()
                assert value is not None
                records.append((record.key(), value))
            return records
        finally:
            consumer.close()


@pytest.fixture
def bare_broker() -> Iterator[Broker]:
    """A broker without topics."""
    producer = Producer(
        {"test.mock.num.brokers": 1, "bootstrap.servers": "ignored:1", "log_level": 0}
    )
    address = next(iter(producer.list_topics(timeout=5).brokers.values()))
    yield Broker(f"{address.host}:{address.port}")
    producer.flush(1)


@pytest.fixture
def broker(bare_broker: Broker) -> Broker:
    producer = Producer({"bootstrap.servers": bare_broker.servers, "log_level": 0})
    for topic in (STREAM, ERRORS):
        producer.list_topics(topic, timeout=5)
    return bare_broker


@pytest.fixture
def cursors(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What stands in for `masto.ingest_cursors`: instance to id, of the public source.

    Other sources have keys such as `one.example/local`. No gap, state or post is stored, and nobody
    has withdrawn.
    """
    saved: dict[str, str] = {}

    def key(instance: str, source: str) -> str:
        return instance if source == "public" else f"{instance}/{source}"

    def read(_url: object, instance: str, source: str) -> Cursor | None:
        last = saved.get(key(instance, source))
        return None if last is None else Cursor(last, LEFT_AT)

    def save(_url: object, instance: str, source: str, newest: str, _rules: str) -> None:
        saved[key(instance, source)] = newest

    monkeypatch.setattr(checkpoint, "read_cursor", read)
    monkeypatch.setattr(checkpoint, "save_cursor", save)
    monkeypatch.setattr(supervisor, "watched", lambda _settings: SuppressionList)
    monkeypatch.setattr(checkpoint, "read_open_gaps", lambda _url, _instance, _source: [])
    monkeypatch.setattr(checkpoint, "read_stored_posts", lambda _url, _instance, _limit: [])
    monkeypatch.setattr(checkpoint, "save_gap", lambda _url, _instance, _source, _gap: None)
    monkeypatch.setattr(checkpoint, "read_state", lambda _url, _instance, _source: None)
    monkeypatch.setattr(checkpoint, "save_state", lambda _url, _instance, _source, _state: None)
    return saved


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch, cursors: dict[str, str]) -> list[tuple[str, str]]:
    """What stands in for `masto.ingest_sources`: source and state, each as it was told."""
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(
        checkpoint,
        "save_state",
        lambda _url, _instance, source, state: told.append((source, state.name)),
    )
    return told


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch, cursors: dict[str, str]) -> dict[datetime, Gap]:
    """What stands in for `masto.stream_gaps`: a copy of each gap as it was saved last."""
    saved: dict[datetime, Gap] = {}
    monkeypatch.setattr(
        checkpoint,
        "save_gap",
        lambda _url, _instance, _source, gap: saved.update({gap.started_at: replace(gap)}),
    )
    return saved


@pytest.fixture(scope="session")
def recorded_statuses() -> list[dict[str, Any]]:
    path = RECORDED / "statuses.ndjson"
    if not path.is_file():
        pytest.skip(f"no recorded statuses at {path}")
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]
