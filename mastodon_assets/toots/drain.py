"""The streaming query: Kafka through Spark into the sink, from the ledger on.

What belongs here: starting, feeding and ending one Structured Streaming query. Its checkpoint
folder is new and empty each time: a kept one would make Spark go on from there instead of from the
ledger.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
from mastodon_assets.toots.withdrawn import read_withdrawn
from mastodon_assets.warehouse.database import transaction

if TYPE_CHECKING:
    import pyarrow as pa
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

    Raises: DataLossError, LedgerConflictError, WithdrawnKeyError, ServiceUnavailableError,
    TopicMissingError.
    """
    with _opened(settings, report) as reader:

        def read() -> None:
            if behind := reader.lag():
                report(f"{reader.target.topic}: {behind} messages to read")
                with reader.query(session(), availableNow=True) as query:
                    query.awaitTermination()

        reader.until_no_conflict(read)
        if reader.summary.batches:
            refresh_statistics(reader.connection)
        reader.summary.end = reader.ledger()
        return reader.summary


def follow(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    *,
    report: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> DrainSummary:
    """Bring each message into the tables as it comes, until `should_stop`.

    A batch that is being written then is finished first. Raises: as `drain`.
    """
    with _opened(settings, report) as reader:

        def read() -> None:
            with reader.query(session(), processingTime="0 seconds") as query:
                while not should_stop():
                    query.awaitTermination(_POLL_SECONDS)

        reader.until_no_conflict(read)
        reader.summary.end = reader.ledger()
        return reader.summary


@contextmanager
def _opened(settings: Settings, report: Callable[[str], None]) -> "Iterator[_Reader]":
    target = read_topic(settings.kafka_servers, settings.kafka_topic)
    with transaction(settings.postgres_url) as connection:
        read_withdrawn(connection, settings.withdrawal_key)
        start = open_ledger(connection, target, accept_data_loss=settings.kafka_accept_data_loss)
    with transaction(settings.postgres_url) as connection:
        prepare_session(connection)
        connection.commit()
        summary = DrainSummary(topic=target.topic, start=start)
        yield _Reader(connection, settings, target, summary, report)


class _Reader:
    """Queries that begin at the ledger, and the one writer behind them.

    Spark works on a batch while the database takes the one before: the writer is a thread that has
    one batch at most. That is safe because the ledger, not Spark, says where a restart begins; a
    query has ended when its writer has.
    """

    def __init__(
        self,
        connection: "Connection[Any]",
        settings: Settings,
        target: TopicState,
        summary: DrainSummary,
        report: Callable[[str], None],
    ) -> None:
        self.connection = connection
        self.target = target
        self.summary = summary
        self._settings = settings
        self._report = report
        self._keep_payloads = False

    def ledger(self) -> dict[int, int]:
        """Where the tables are now."""
        with self.connection.transaction():
            return read_ledger(self.connection, self.target.topic)

    def lag(self) -> int:
        """Messages between the ledger and the end that the topic had at the start."""
        return lag(self.ledger(), self.target.end)

    def until_no_conflict(self, read: Callable[[], None]) -> None:
        """Run `read` again where another writer moved the ledger, unless it does so each time."""
        conflicts = 0
        while True:
            batches = self.summary.batches
            try:
                return read()
            except PayloadsNeededError:
                self._keep_payloads = True
            except LedgerConflictError:
                conflicts = 1 if self.summary.batches > batches else conflicts + 1
                if conflicts == _CONFLICTS_IN_A_ROW:
                    raise
                time.sleep(_CONFLICT_PAUSE_SECONDS)

    @contextmanager
    def query(self, spark: "SparkSession", **trigger: Any) -> "Iterator[StreamingQuery]":
        """A started query from the ledger on; stopped, and its last batch written, at the end."""
        starting = json.dumps({self.target.topic: self._starting_offsets()})
        records = (
            spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", self._settings.kafka_servers)
            .option("subscribe", self.target.topic)
            .option("startingOffsets", starting)
            .option("failOnDataLoss", "true")
            .option("maxOffsetsPerTrigger", self._settings.max_offsets_per_batch)
            .load()
        )
        with (
            tempfile.TemporaryDirectory(prefix="mastodon_assets-checkpoint-") as checkpoint,
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="sink") as writer,
        ):
            written: Future[None] = Future()
            written.set_result(None)

            def hand_over(records: "DataFrame", batch_id: int) -> None:
                nonlocal written
                rows = parse_records(records, keep_payloads=self._keep_payloads).toArrow()
                written.result()
                written = writer.submit(self._write, rows, batch_id)

            query = (
                records.writeStream.foreachBatch(hand_over)
                .option("checkpointLocation", file_uri(Path(checkpoint)))
                .trigger(**trigger)
                .start()
            )
            try:
                yield query
            except StreamingQueryException:
                # Spark hands on what the writer raised as text only; its future has the exception.
                written.result()
                raise
            finally:
                query.stop()
            written.result()

    def _starting_offsets(self) -> dict[str, int]:
        ledger = self.ledger()
        return {str(partition): ledger[partition] for partition in self.target.end}

    def _write(self, rows: "pa.Table", batch_id: int) -> None:
        counts = self._commit(rows)
        self.summary.batches += 1
        self.summary.counts += counts
        self._report(f"batch {batch_id}: {counts}")

    def _commit(self, rows: "pa.Table") -> BatchCounts:
        with self.connection.transaction():
            return write_batch(
                self.connection,
                rows,
                {self.target.topic: self.target.topic_id},
                withdrawn_key=self._settings.withdrawal_key,
            )
