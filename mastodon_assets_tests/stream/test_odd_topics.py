"""Topics as other producers leave them: with holes, large records, odd envelopes."""

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

import mastodon_assets.stream.query as query_module
import mastodon_assets.stream.replay as replay_module
from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.stream import one_by_one
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.ledger import lag, read_ledger
from mastodon_assets.stream.merge import BatchCounts, write_batch
from mastodon_assets.stream.one_by_one import UnmanageableRecordsError
from mastodon_assets.stream.replay import replay
from mastodon_assets.stream.stall import QueryStalledError
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.records import as_value, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def _lag(settings: Settings) -> int:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        ledger = read_ledger(connection, settings.kafka_topic)
    return lag(ledger, read_topic(settings, settings.kafka_topic).end)


def _wait_for_end(settings: Settings, end: int) -> None:
    deadline = time.monotonic() + 60
    while read_topic(settings, settings.kafka_topic).end[0] < end:
        assert time.monotonic() < deadline, "the transactions do not end"
        time.sleep(0.1)


def _rejected(settings: Settings) -> list[tuple[str, int]]:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        return connection.execute(
            "SELECT reason, count(*) FROM masto.toots_rejected GROUP BY 1 ORDER BY 1"
        ).fetchall()


def _allow_any_timestamp(settings: Settings) -> None:
    entry = ConfigEntry(
        "message.timestamp.after.max.ms",
        str(2**63 - 1),
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ResourceType.TOPIC, settings.kafka_topic, incremental_configs=[entry])
    admin = AdminClient(client_config(settings))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


def test_committed_and_aborted_transactions_leave_no_lag(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    producer = Producer(
        {
            **client_config(settings),
            "transactional.id": settings.kafka_topic,
        }
    )
    producer.init_transactions()
    for number, end in enumerate((producer.commit_transaction, producer.abort_transaction), 1):
        producer.begin_transaction()
        producer.produce(settings.kafka_topic, as_value(upsert(str(number))), b"key", 0)
        # Otherwise an abort may drop the record before it is sent.
        producer.flush()
        end()
    # A record and a marker per transaction; the broker writes markers after it has answered.
    _wait_for_end(settings, 4)
    # The topic ends with an aborted transaction: all that is left are offsets without a record.
    assert drain(lambda: spark, settings, report=print).counts == BatchCounts(stored=1)
    assert _lag(settings) == 0
    produce([upsert("3")])
    assert drain(lambda: spark, settings, report=print).counts == BatchCounts(stored=1)
    assert _lag(settings) == 0


@pytest.mark.parametrize("scale", [10**3, 10**6], ids=["microseconds", "nanoseconds"])
def test_a_record_whose_time_is_in_no_calendar_is_rejected(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None], scale: int
) -> None:
    _allow_any_timestamp(settings)
    producer = Producer(client_config(settings))
    claimed = 1_764_000_000_000 * scale
    producer.produce(settings.kafka_topic, as_value(upsert("1")), b"key", 0, timestamp=claimed)
    producer.flush()
    produce([upsert("2")])
    counts = drain(lambda: spark, settings, report=print).counts
    assert counts == BatchCounts(stored=1, rejected=1)
    assert _rejected(settings) == [("the record's timestamp is no time in milliseconds", 1)]


def test_a_huge_key_and_odd_headers_do_not_stop_the_drain(
    spark: "SparkSession", settings: Settings
) -> None:
    producer = Producer(client_config(settings))
    headers: list[Any] = [("", b"\xff"), ("x", None), ("h" * 1_000, b"y" * 1_000)]
    key = b"\xff" * 700_000
    producer.produce(settings.kafka_topic, as_value(upsert("1")), key, 0, headers=headers)
    producer.produce(settings.kafka_topic, b"garb\xffage", key, 0, headers=headers)
    producer.flush()
    counts = drain(lambda: spark, settings, report=print).counts
    assert counts == BatchCounts(stored=1, rejected=1)


def test_a_batch_of_large_records_is_read_in_several_parts(
    spark: "SparkSession",
    settings: Settings,
    produce: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (query_module, replay_module):
        monkeypatch.setattr(module, "batch_bytes", lambda _settings: 2 * 2**20)
    text = "x" * 500_000
    for number in range(40):
        produce([upsert(str(number), content=text)], number % 2)
    summary = drain(lambda: spark, settings, report=print)
    assert summary.counts == BatchCounts(stored=40)
    assert summary.batches > 1
    assert _lag(settings) == 0
    lines: list[str] = []
    replayed = replay(lambda: spark, settings, report=lines.append)
    assert replayed.counts == BatchCounts(stale=40)
    assert len(lines) > len(replayed.ranges) == 2


def test_a_record_that_cannot_be_handled_is_rejected_and_the_others_are_stored(
    spark: "SparkSession",
    settings: Settings,
    produce: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = "what nobody may find in a log"

    def fail_at_the_bad_one(connection: Any, rows: Any, *rest: Any, **options: Any) -> BatchCounts:
        if words in rows.column("content_txt").to_pylist():
            # PostgreSQL quotes values in its messages and in the lines that follow.
            raise psycopg.DataError(f"invalid: {words}\nCONTEXT:  COPY, line 1: {words}")
        return write_batch(connection, rows, *rest, **options)

    monkeypatch.setattr(query_module, "write_batch", fail_at_the_bad_one)
    produce([upsert(str(number)) for number in range(9)])
    produce([upsert("9", content=words)])
    summary = drain(lambda: spark, settings, report=print)
    assert summary.counts == BatchCounts(stored=9, rejected=1)
    assert _rejected(settings) == [(f"cannot be handled: DataError: invalid: {words}", 1)]
    assert "is rejected (DataError); see: mastodon-assets rejected list" in caplog.text
    assert words not in caplog.text
    # So many that the fault is not in them.
    monkeypatch.setattr(one_by_one, "_MOST_REJECTED", 0)
    produce([upsert("10", content=words)])
    with pytest.raises(UnmanageableRecordsError, match=r"DataError in test_odd") as raised:
        drain(lambda: spark, settings, report=print)
    assert words not in "".join(traceback.format_exception(raised.value, chain=True))
    monkeypatch.setattr(query_module, "write_batch", write_batch)
    assert drain(lambda: spark, settings, report=print).counts == BatchCounts(stored=1)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert window_sum_and_rows(connection) == (10, 10)
    assert _lag(settings) == 0


def test_a_query_that_writes_nothing_is_ended_and_named(
    spark: "SparkSession",
    settings: Settings,
    produce: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait_for_ever(connection: Any, *_: Any, **__: Any) -> BatchCounts:
        connection.execute("SELECT pg_sleep(600)")
        raise AssertionError("the wait must be cancelled")

    monkeypatch.setattr(query_module, "write_batch", wait_for_ever)
    produce([upsert("1")])
    impatient = settings.model_copy(update={"stream_stall_seconds": 1})
    with pytest.raises(QueryStalledError, match="no batch was written for 1 s although 1 messages"):
        drain(lambda: spark, impatient, report=print)
