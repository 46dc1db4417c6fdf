"""The streaming query: Kafka through Spark into the sink, from the ledger on.

What belongs here: starting, feeding and ending one Structured Streaming query. Its checkpoint
folder is new and empty each time: a kept one would make Spark go on from there instead of from the
ledger.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.errors import StreamingQueryException

from mastodon_assets.settings import Settings
from mastodon_assets.spark_session import file_uri
from mastodon_assets.toots.ledger import LedgerConflictError, lag, open_ledger, read_ledger
from mastodon_assets.toots.parse import parse_records
from mastodon_assets.toots.sink import (
    BatchCounts,
    PayloadsNeededError,
    prepare_session,
    refresh_statistics,
    write_batch,
)
from mastodon_assets.toots.topics import Offsets, TopicState, read_topic
from mastodon_assets.warehouse.database import connect, transaction

if TYPE_CHECKING:
    from psycopg import Connection
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

_CONFLICTS_IN_A_ROW = 5
_CONFLICT_PAUSE_SECONDS = 1
_POLL_SECONDS = 1


@dataclass
class DrainSummary:
    """What one drain did. `start` and `end` map partition to ledger offset before and after."""

    topic: str
    start: Offsets
    end: Offsets = field(default_factory=dict)
    batches: int = 0
    counts: BatchCounts = field(default_factory=BatchCounts)


def drain(
    session: Callable[[], "SparkSession"], settings: Settings, *, report: Callable[[str], None]
) -> DrainSummary:
    """Bring the tables to the end offsets that the topic has now.

    `session` is called only where there is something to read. Another writer that moves the
    ledger meanwhile is no error: what it wrote is skipped, at most five times in a row.

    Raises: DataLossError, LedgerConflictError, ServiceUnavailableError, TopicMissingError.
    """
    target, summary = _open(settings)
    with connect(settings.postgres_url) as connection:
        prepare_session(connection)
        connection.commit()

        def read_once() -> None:
            ledger = _current_ledger(connection, target)
            if behind := lag(ledger, target.end):
                report(f"{target.topic}: {behind} messages to read")
                query = _Query(connection, settings, target, summary, report)
                query.run_until_available(session(), ledger)

        _until_no_conflict(read_once, summary)
        if summary.batches:
            refresh_statistics(connection)
        summary.end = _current_ledger(connection, target)
    return summary


def follow(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    *,
    report: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> DrainSummary:
    """Bring each message into the tables as it comes, until `should_stop`; then end.

    A batch that is being written then is finished first. Raises: as `drain`.
    """
    target, summary = _open(settings)
    with connect(settings.postgres_url) as connection:
        prepare_session(connection)
        connection.commit()

        def read_on() -> None:
            query = _Query(connection, settings, target, summary, report)
            query.run_until(session(), _current_ledger(connection, target), should_stop)

        _until_no_conflict(read_on, summary)
        summary.end = _current_ledger(connection, target)
    return summary


def _open(settings: Settings) -> tuple[TopicState, DrainSummary]:
    target = read_topic(settings.kafka_servers, settings.kafka_topic)
    with transaction(settings.postgres_url) as connection:
        start = open_ledger(connection, target, accept_data_loss=settings.kafka_accept_data_loss)
    return target, DrainSummary(topic=target.topic, start=start)


def _until_no_conflict(read: Callable[[], None], summary: DrainSummary) -> None:
    """Run `read` again where another writer moved the ledger, unless it does so each time."""
    conflicts = 0
    while True:
        batches = summary.batches
        try:
            return read()
        except LedgerConflictError:
            conflicts = 1 if summary.batches > batches else conflicts + 1
            if conflicts == _CONFLICTS_IN_A_ROW:
                raise
            time.sleep(_CONFLICT_PAUSE_SECONDS)


def _current_ledger(connection: "Connection[Any]", target: TopicState) -> dict[int, int]:
    with connection.transaction():
        return read_ledger(connection, target.topic)


class _Query:
    """One streaming query and what its writer raised: Spark hands an exception on as text only."""

    def __init__(
        self,
        connection: "Connection[Any]",
        settings: Settings,
        target: TopicState,
        summary: DrainSummary,
        report: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._target = target
        self._summary = summary
        self._report = report
        self._failure: BaseException | None = None
        self._writing = threading.Lock()

    def run_until_available(self, spark: "SparkSession", ledger: Offsets) -> None:
        """Read what is there now, then end."""
        with self._started(spark, ledger, availableNow=True) as query:
            query.awaitTermination()

    def run_until(
        self, spark: "SparkSession", ledger: Offsets, should_stop: Callable[[], bool]
    ) -> None:
        """Read on until `should_stop` says so between two batches."""
        with self._started(spark, ledger, processingTime="0 seconds") as query:
            while not should_stop():
                query.awaitTermination(_POLL_SECONDS)

    @contextmanager
    def _started(
        self, spark: "SparkSession", ledger: Offsets, **trigger: Any
    ) -> "Iterator[StreamingQuery]":
        starting = {str(partition): ledger[partition] for partition in self._target.end}
        records = (
            spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", self._settings.kafka_servers)
            .option("subscribe", self._target.topic)
            .option("startingOffsets", json.dumps({self._target.topic: starting}))
            .option("failOnDataLoss", "true")
            .option("maxOffsetsPerTrigger", self._settings.max_offsets_per_batch)
            .load()
        )
        with tempfile.TemporaryDirectory(prefix="mastodon_assets-checkpoint-") as checkpoint:
            query = (
                records.writeStream.foreachBatch(self._write)
                .option("checkpointLocation", file_uri(Path(checkpoint)))
                .trigger(**trigger)
                .start()
            )
            try:
                yield query
            except StreamingQueryException:
                if self._failure is not None:
                    raise self._failure from None
                raise
            finally:
                # The batch at hand is finished first: the lock is the writer's while it writes.
                with self._writing:
                    query.stop()

    def _write(self, records: "DataFrame", batch_id: int) -> None:
        try:
            with self._writing:
                counts = self._write_rows(records)
        except BaseException as error:
            self._failure = error
            raise
        self._summary.batches += 1
        self._summary.counts += counts
        self._report(f"batch {batch_id}: {counts}")

    def _write_rows(self, records: "DataFrame") -> BatchCounts:
        topic_ids = {self._target.topic: self._target.topic_id}
        try:
            with self._connection.transaction():
                return write_batch(self._connection, parse_records(records).toArrow(), topic_ids)
        except PayloadsNeededError:
            rows = parse_records(records, keep_payloads=True).toArrow()
            with self._connection.transaction():
                return write_batch(self._connection, rows, topic_ids)
