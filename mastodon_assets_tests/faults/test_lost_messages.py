"""A topic that no longer holds what the ledger expects next, at a real broker."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import CollectorRegistry

from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.sentiment.scoring.micro_batch import MicroBatchScorer
from mastodon_assets.stream.continuous import stream
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.ledger import DataLossError, read_ledger
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.stream.metrics import StreamProgress
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.records import upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PATIENCE_SECONDS = 120


def _accepting(settings: Settings) -> Settings:
    return settings.model_copy(update={"kafka_accept_data_loss": True})


def _make_anew(settings: Settings) -> None:
    admin = AdminClient(client_config(settings))
    admin.delete_topics([settings.kafka_topic])[settings.kafka_topic].result(30)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        topic = NewTopic(settings.kafka_topic, num_partitions=4)
        try:
            admin.create_topics([topic])[settings.kafka_topic].result(30)
            break
        except KafkaException:
            time.sleep(0.2)
    # Returns when it can be used.
    create_topics(settings.kafka_access, [settings.kafka_topic])


def _stored(settings: Settings) -> int:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        in_windows, rows = window_sum_and_rows(connection)
        assert in_windows == rows
        return rows


def test_retention_that_passed_the_ledger_is_reported_and_accepted(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    produce([upsert(str(number)) for number in range(3)])
    drain(lambda: spark, settings, report=print)
    produce([upsert(str(number)) for number in range(3, 10)])
    admin = AdminClient(client_config(settings))
    place = TopicPartition(settings.kafka_topic, 0, 6)
    admin.delete_records([place])[place].result(30)

    reported = rf"{settings.kafka_topic}\[0\]: expected offset 3, .*retention.* found 6 to 10"
    with pytest.raises(DataLossError, match=reported):
        drain(lambda: spark, settings, report=print)
    assert _stored(settings) == 3
    assert drain(lambda: spark, _accepting(settings), report=print).counts == BatchCounts(stored=4)
    assert _stored(settings) == 7


def test_a_topic_created_again_ends_the_stream_with_its_offset_and_is_accepted(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    produce([upsert("1"), upsert("2"), upsert("3")])
    progress = StreamProgress(
        settings, on_report=lambda _report: None, registry=CollectorRegistry()
    )
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            stream,
            lambda: spark,
            settings,
            make_scorer=MicroBatchScorer,
            progress=progress,
            should_stop=lambda: time.monotonic() > deadline,
        )
        while _stored(settings) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        _make_anew(settings)
        produce([upsert("4")])
        reported = (
            rf"{settings.kafka_topic}\[0\]: expected offset 3, but the topic was created again"
        )
        with pytest.raises(DataLossError, match=reported):
            running.result()
    assert _stored(settings) == 3
    assert drain(lambda: spark, _accepting(settings), report=print).counts == BatchCounts(stored=1)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert sum(read_ledger(connection, settings.kafka_topic).values()) == 1
    assert _stored(settings) == 4
