"""The streaming query: Kafka through Spark into the sink, from the ledger on.

What belongs here: starting, feeding and ending one Structured Streaming query. Its checkpoint
folder is new and empty each time: a kept one would make Spark go on from there instead of from the
ledger.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from mastodon_assets.settings import Settings
from mastodon_assets.toots.ledger import LedgerConflictError, lag, open_ledger, read_ledger
from mastodon_assets.toots.parse import parse_records
from mastodon_assets.toots.sink import (
    BatchCounts,
    PayloadsNeededError,
    prepare_session,
    write_batch,
)
from mastodon_assets.toots.topics import Offsets, TopicState, read_topic
from mastodon_assets.warehouse.database import connect, transaction

if TYPE_CHECKING:
    from psycopg import Connection
    from pyspark.sql import DataFrame, SparkSession

_CONFLICT_ATTEMPTS = 5


@dataclass
class DrainSummary:
    """What one drain did. `start` and `end` map partition to ledger offset before and after."""

    topic: str
    start: Offsets
    end: Offsets = field(default_factory=dict)
    batches: int = 0
    counts: BatchCounts = field(default_factory=BatchCounts)


def drain(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    *,
    report: Callable[[str], None],
) -> DrainSummary:
    """Bring the tables to the end offsets that the topic has now.

    `session` is called only where there is something to read. Another writer that moves the
    ledger meanwhile is no error: what it wrote is skipped, at most five times.

    Raises: DataLossError, LedgerConflictError, ServiceUnavailableError, TopicMissingError.
    """
    target = read_topic(settings.kafka_servers, settings.kafka_topic)
    with transaction(settings.postgres_url) as connection:
        start = open_ledger(connection, target, accept_data_loss=settings.kafka_accept_data_loss)
    summary = DrainSummary(topic=target.topic, start=start)
    retrying = Retrying(
        retry=retry_if_exception_type(LedgerConflictError),
        stop=stop_after_attempt(_CONFLICT_ATTEMPTS),
        wait=wait_fixed(1),
        reraise=True,
    )
    retrying(_drain_once, session, settings, target, summary, report)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        summary.end = read_ledger(connection, target.topic)
    return summary


def _drain_once(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    target: TopicState,
    summary: DrainSummary,
    report: Callable[[str], None],
) -> None:
    with connect(settings.postgres_url) as connection:
        ledger = read_ledger(connection, target.topic)
        behind = lag(ledger, target.end)
        if not behind:
            return
        report(f"{target.topic}: {behind} messages to read")
        prepare_session(connection)
        connection.commit()

        def write(records: "DataFrame", batch_id: int) -> None:
            counts = _write(connection, records, target)
            summary.batches += 1
            summary.counts += counts
            report(f"batch {batch_id}: {counts}")

        _run_query(session(), settings, ledger, target, write)


def _run_query(
    spark: "SparkSession",
    settings: Settings,
    ledger: Offsets,
    target: TopicState,
    write: Callable[["DataFrame", int], None],
) -> None:
    failures: list[BaseException] = []

    def write_and_note(records: "DataFrame", batch_id: int) -> None:
        # Spark hands an exception on as text; the query's owner wants the exception.
        try:
            write(records, batch_id)
        except BaseException as error:
            failures.append(error)
            raise

    starting = {str(partition): ledger[partition] for partition in target.end}
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", settings.kafka_servers)
        .option("subscribe", target.topic)
        .option("startingOffsets", json.dumps({target.topic: starting}))
        .option("failOnDataLoss", "true")
        .option("maxOffsetsPerTrigger", settings.max_offsets_per_batch)
        .load()
    )
    with tempfile.TemporaryDirectory(prefix="mastodon_assets-checkpoint-") as checkpoint:
        query = (
            records.writeStream.foreachBatch(write_and_note)
            .option("checkpointLocation", checkpoint)
            .trigger(availableNow=True)
            .start()
        )
        try:
            query.awaitTermination()
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        finally:
            query.stop()


def _write(
    connection: "Connection[object]", records: "DataFrame", target: TopicState
) -> BatchCounts:
    topic_ids = {target.topic: target.topic_id}
    try:
        with connection.transaction():
            return write_batch(connection, parse_records(records).toArrow(), topic_ids)
    except PayloadsNeededError:
        with connection.transaction():
            rows = parse_records(records, keep_payloads=True).toArrow()
            return write_batch(connection, rows, topic_ids)
