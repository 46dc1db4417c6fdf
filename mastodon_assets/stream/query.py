"""Streaming queries that start at the ledger, and the transaction behind each micro-batch.

What belongs here: starting, feeding and ending one Structured Streaming query. Spark hands each
micro-batch to `BatchWriter`, which passes it to `TopicReader.commit`: one transaction per batch.
When to read, and what to do after a failure, is decided in `drain` and `continuous`.

The checkpoint folder is new and empty each time: with an old one Spark would go on from there
instead of from the ledger.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pyspark.errors import StreamingQueryException

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.kafka.client import spark_options
from mastodon_assets.kafka.topics import Offsets, TopicIdentity, TopicState, read_topic
from mastodon_assets.spark.memory import batch_bytes
from mastodon_assets.spark.session import file_uri, is_connect, shown_master
from mastodon_assets.stream.errors import (
    TemporaryFilesError,
    TopicReplacedError,
    as_platform_error,
)
from mastodon_assets.stream.ledger import LedgerConflictError, lag, open_ledger, read_ledger
from mastodon_assets.stream.merge import (
    BatchCounts,
    OffsetRange,
    PayloadsNeededError,
    prepare_session,
    write_batch,
)
from mastodon_assets.stream.one_by_one import (
    BatchFailedError,
    may_be_in_records,
    write_one_by_one,
)
from mastodon_assets.stream.parse import collect_rows, parse_records
from mastodon_assets.stream.stall import QueryStalledError, StallWatch
from mastodon_assets.stream.temporary_folders import temporary_folder
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.suppression_list import read_suppression_list

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg import Connection
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

logger = logging.getLogger(__name__)

_CONFLICTS_IN_A_ROW = 5
_CONFLICT_PAUSE_SECONDS = 1
_CANCEL_SECONDS = 10
_POLL_SECONDS = 1
# With Kafka's defaults, 500 records and 1 MB per request, requests cost a seventh of the time.
_LARGE_REQUESTS = {
    "kafka.max.poll.records": "10000",
    "kafka.max.partition.fetch.bytes": str(8 * 2**20),
    "kafka.receive.buffer.bytes": str(2**20),
}
# By default Spark writes the offsets of each batch to disk twice and waits for it, which is a fifth
# of a small batch's time. Nobody reads them, because a start reads the ledger. So Spark writes them
# in the background, once a minute. The check that is switched off protects sinks that rely on them;
# it also refuses bounded queries, which therefore keep the default.
_OFFSETS_IN_BACKGROUND = {
    "asyncProgressTrackingEnabled": "true",
    "asyncProgressTrackingCheckpointIntervalMs": "60000",
    "_asyncProgressTrackingOverrideSinkSupportCheck": "true",
}

# A further step of the transaction that writes a batch: of the scores, for instance.
TransactionStep = Callable[["Connection[Any]"], None]
# Makes the step from the batch's rows, before the transaction begins.
MakeStep = Callable[["pa.Table"], TransactionStep]


@dataclass(frozen=True)
class Batch:
    """A committed micro-batch; `seconds` from its first record read to its commit."""

    counts: BatchCounts
    seconds: float


class _CommitBatch(Protocol):
    def __call__(
        self,
        rows: "pa.Table",
        ranges: Sequence[OffsetRange],
        step: TransactionStep | None,
        started: float,
    ) -> None:
        """See `TopicReader.commit`."""


class BatchWriter:
    """Receives the micro-batches of one query from Spark and has each written in a transaction.

    A batch that was too large to be read at once is written as far as it was read; `is_cut` then
    says that the query must start again at the ledger.

    Spark works on a batch while the database takes the one before: a thread writes, and has one
    batch at most. That is safe because a restart begins at the ledger, not at Spark's offsets. A
    query has ended when its last batch is written.
    """

    def __init__(
        self,
        commit: _CommitBatch,
        make_step: MakeStep | None,
        *,
        topic: str,
        start: Offsets,
        planned_ends: Callable[[], Offsets],
    ) -> None:
        """Prepare a writer.

        Args:
            commit: Writes a batch in one transaction.
            make_step: Makes a further step of the transaction from the batch's rows.
            topic: The topic.
            start: Partition to the offset at which the query starts.
            planned_ends: Returns partition to end offset of the batch that Spark hands over.
        """
        self.is_cut = False
        self.rows_before_cut = 0
        self._topic = topic
        self._next = dict(start)
        self._planned_ends = planned_ends
        self._commit = commit
        self._make_step = make_step
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch-writer")
        self._last_write: Future[None] = Future()
        self._last_write.set_result(None)
        self._is_stopping = False

    def receive(self, parsed: "DataFrame", _batch_id: int) -> None:
        """Take a micro-batch from Spark; the function of `foreachBatch`.

        After a failure further batches are ignored until the query is stopped. The failure is not
        raised here: Spark would log a traceback and search its text by a regular expression that
        overflows the stack on a long one (`PROXY_ERROR` in StreamExecution). The query would then
        end as if everything had been read.
        """
        if self._has_failed or self.is_cut:
            return
        started = time.monotonic()
        ranges: list[OffsetRange] = []
        try:
            ends = self._planned_ends()
            ranges = self._ranges(ends)
            collected = collect_rows(parsed)
            ranges = self._ranges({**ends, **collected.unread})
            step = self._make_step(collected.rows) if self._make_step else None
            self._last_write.result()
        except Exception as error:  # noqa: BLE001 - kept for `raise_failure`
            if not self._is_stopping and not self._has_failed:
                self._keep_failure(_failure(as_platform_error(error), ranges))
            return
        self._next |= {read.partition: read.end for read in ranges}
        self.is_cut = bool(collected.unread)
        self.rows_before_cut = collected.rows.num_rows
        self._last_write = self._thread.submit(self._write, collected.rows, ranges, step, started)

    def _write(
        self,
        rows: "pa.Table",
        ranges: list[OffsetRange],
        step: TransactionStep | None,
        started: float,
    ) -> None:
        try:
            self._commit(rows, ranges, step, started)
        except Exception as error:
            failure = _failure(error, ranges)
            if failure is error:
                raise
            raise failure from error

    def _ranges(self, ends: Offsets) -> list[OffsetRange]:
        return [
            OffsetRange(self._topic, partition, self._next.get(partition, 0), end)
            for partition, end in sorted(ends.items())
            if end > self._next.get(partition, 0)
        ]

    def raise_failure(self) -> None:
        """Raise what ended reading or writing; do nothing while a batch is being written."""
        if self._last_write.done():
            self._last_write.result()

    def wait(self, seconds: float) -> bool:
        """Wait for the batch that is being written, at most `seconds`; return whether none is.

        Raises what `raise_failure` raises.
        """
        wait([self._last_write], timeout=seconds)
        self.raise_failure()
        return self._last_write.done()

    def finish(self) -> None:
        """Wait until the last batch is written. Raises what `raise_failure` raises."""
        self._last_write.result()

    def stop(self) -> None:
        """Ignore the failures of a query that is about to be stopped."""
        self._is_stopping = True

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown()

    @property
    def _has_failed(self) -> bool:
        return self._last_write.done() and self._last_write.exception() is not None

    def _keep_failure(self, error: Exception) -> None:
        self._last_write = Future()
        self._last_write.set_exception(error)


class RunningQuery:
    """A query of Spark and the writer behind it."""

    def __init__(self, query: "StreamingQuery", writer: BatchWriter) -> None:
        self._query = query
        self._writer = writer

    @property
    def must_restart(self) -> bool:
        """Whether a batch was too large, so that the query reads nothing more."""
        return self._writer.is_cut

    def wait(self, seconds: int) -> bool:
        """Wait until the query ends; raise what ended query or writer.

        Args:
            seconds: The longest wait, once for Spark and once for the writer.

        Returns:
            Whether the query has ended and its last batch is written.
        """
        has_ended = self._query.awaitTermination(seconds)
        # Spark would notice a failed write only with the next batch, which may never come.
        self._writer.raise_failure()
        # Spark ends as soon as it has handed over the last batch.
        return bool(has_ended) and self._writer.wait(seconds)


class TopicReader:
    """Reads a topic from the ledger on and writes its messages; see `opened_reader`.

    Attributes:
        connection: The writer's. Do not use it while a query runs.
        target: The topic as it was when reading began.
        start: The ledger when reading began.
        position: The ledger after the last batch of this reader.
        batches: Batches committed by this reader.
    """

    def __init__(
        self,
        connection: "Connection[Any]",
        settings: Settings,
        target: TopicState,
        start: Offsets,
        on_batch: Callable[[Batch], None],
    ) -> None:
        self.connection = connection
        self.target = target
        self.start = start
        self.position = dict(start)
        self.batches = 0
        self._settings = settings
        self._on_batch = on_batch
        self._topic_id = TopicIdentity(settings, target.topic)
        self._most_offsets = settings.max_offsets_per_batch

    def ledger(self) -> dict[int, int]:
        """Return the ledger as it is now. Do not call it while a query runs."""
        with self.connection.transaction():
            self.position = read_ledger(self.connection, self.target.topic)
        return self.position

    def lag(self) -> int:
        """Count the messages between the ledger and the end that the topic had at the start."""
        return lag(self.ledger(), self.target.end)

    def read_available(self, spark: "SparkSession", *, keep_payloads: bool) -> bool:
        """Read the messages that the topic has now.

        Returns:
            Whether all of them were read. Otherwise a batch was too large, and must be continued.

        Raises:
            QueryStalledError: No batch was written for STREAM_STALL_SECONDS.
            Exception: See `query`.
        """
        watch = StallWatch(self.target.topic, self._settings.stream_stall_seconds)
        with self.query(spark, keep_payloads=keep_payloads, availableNow=True) as query:
            while not query.wait(_POLL_SECONDS):
                behind = lag(self.position, self.target.end)
                watch.check(batches=self.batches, behind=behind)
        return not query.must_restart

    def until_no_conflict(
        self, read: Callable[[bool], None], *, give_way: Callable[[], None] | None = None
    ) -> None:
        """Call `read(keep_payloads)` until it ends without a conflict.

        A conflict is another writer that moved the ledger; `give_way` is then called before the
        next attempt. Payloads are kept only if the attempt before rejected messages because of
        stored rows.

        Raises:
            LedgerConflictError: Five conflicts in a row, without a batch in between.
        """
        conflicts = 0
        keep_payloads = False
        while True:
            batches = self.batches
            try:
                return read(keep_payloads)
            except PayloadsNeededError:
                keep_payloads = True
            except BatchFailedError as failed:
                logger.warning("a batch failed (%s); reading it in smaller portions", failed)
                write_one_by_one(self._settings, failed, self._write_portion)
            except LedgerConflictError:
                conflicts = 1 if self.batches > batches else conflicts + 1
                if conflicts == _CONFLICTS_IN_A_ROW:
                    raise
                time.sleep(_CONFLICT_PAUSE_SECONDS)
                if give_way:
                    give_way()

    @contextmanager
    def query(
        self,
        spark: "SparkSession",
        *,
        keep_payloads: bool = False,
        make_step: MakeStep | None = None,
        **trigger: Any,
    ) -> "Iterator[RunningQuery]":
        """Start a query at the ledger; at the end stop it and wait for its last batch.

        Args:
            spark: The session; not one of Spark Connect.
            keep_payloads: Whether rows carry their payloads, also if they are not rejected.
            make_step: Makes a further step of each batch's transaction from its rows.
            **trigger: Of `DataStreamWriter.trigger`.

        Raises:
            SettingsError: Spark Connect, which cannot hand batches to this process.
            ServiceUnavailableError: Kafka failed, or a folder for temporary files.
            BatchFailedError: A batch failed for a reason that may be in its records.
            Exception: Whatever else the writer raised.
        """
        self._refuse_connect()
        ledger = self.ledger()
        started: Future[StreamingQuery] = Future()
        with temporary_folder("query") as checkpoint:
            writer = BatchWriter(
                self.commit,
                make_step,
                topic=self.target.topic,
                start=ledger,
                planned_ends=lambda: _planned_ends(started.result(), self.target.topic),
            )
            tasks = spark.sparkContext.defaultParallelism
            try:
                query = (
                    parse_records(
                        # A task more than there are cores would only cost its start.
                        self._records(spark, ledger).coalesce(tasks),
                        keep_payloads=keep_payloads,
                        task_bytes=batch_bytes(self._settings) // tasks,
                    )
                    .writeStream.foreachBatch(writer.receive)
                    .options(**({} if "availableNow" in trigger else _OFFSETS_IN_BACKGROUND))
                    .option("checkpointLocation", file_uri(checkpoint))
                    .trigger(**trigger)
                    .start()
                )
                started.set_result(query)
                try:
                    yield RunningQuery(query, writer)
                except QueryStalledError:
                    # A write may wait for a lock that another session holds.
                    self.connection.cancel_safe(timeout=_CANCEL_SECONDS)
                    raise
                except StreamingQueryException as error:
                    # Spark passes on a batch's exception as text only; the writer has it whole.
                    writer.finish()
                    raise _query_failure(error, checkpoint) from error
                finally:
                    writer.stop()
                    query.stop()
                writer.finish()
            finally:
                writer.close()
        if writer.is_cut:
            # Records of this size fit then; a fifth less, because partitions differ.
            self._most_offsets = max(1, writer.rows_before_cut * 4 // 5)
            logger.info(
                "%s: records are large; reading at most %s per batch",
                self.target.topic,
                self._most_offsets,
            )

    def commit(
        self,
        rows: "pa.Table",
        ranges: Sequence[OffsetRange],
        step: TransactionStep | None,
        started: float,
    ) -> None:
        """Write a micro-batch in one transaction: rows, derived tables, ledger and `step`.

        Args:
            rows: Columns of `parse.parse_records`.
            ranges: The offsets that were read.
            step: Called in the transaction after the rows are written.
            started: `time.monotonic()` when the batch's first record was read.
        """
        # The id is read after the records: if it is the same now, it was the same for them.
        topic_id = self._topic_id.ask()
        if topic_id != self.target.topic_id:
            raise TopicReplacedError(
                f"{self.target.topic} was deleted and created again while it was read; this batch"
                " wrote nothing: run it again"
            )
        with self.connection.transaction():
            counts = write_batch(
                self.connection,
                rows,
                {self.target.topic: topic_id},
                ranges=ranges,
                suppression_key=self._settings.suppression_key,
            )
            if step:
                step(self.connection)
        self.position = {**self.position, **{read.partition: read.end for read in ranges}}
        self.batches += 1
        self._on_batch(Batch(counts, time.monotonic() - started))

    def _write_portion(self, rows: "pa.Table", offsets: OffsetRange) -> None:
        self.commit(rows, [offsets], None, time.monotonic())

    def _records(self, spark: "SparkSession", ledger: Offsets) -> "DataFrame":
        starting = {str(partition): ledger[partition] for partition in self.target.end}
        return (
            spark.readStream.format("kafka")
            .options(**spark_options(self._settings), **_LARGE_REQUESTS)
            .option("subscribe", self.target.topic)
            .option("startingOffsets", json.dumps({self.target.topic: starting}))
            .option("failOnDataLoss", "true")
            .option("maxOffsetsPerTrigger", self._most_offsets)
            .load()
        )

    def _refuse_connect(self) -> None:
        if is_connect(self._settings):
            raise SettingsError(
                f"SPARK_MASTER={shown_master(self._settings)}: Spark Connect cannot pass the"
                " stream's batches to the writer; set local[*] or spark://… for stream and"
                " toots_raw"
            )


@contextmanager
def opened_reader(
    settings: Settings, target: TopicState, on_batch: Callable[[Batch], None]
) -> Iterator[TopicReader]:
    """Open a reader of `target` with its own connection; compare the ledger with the broker.

    Raises:
        DataLossError: The topic no longer holds the messages after the ledger.
        SuppressionKeyError: The suppression list has entries under another key.
        ServiceUnavailableError: Kafka or PostgreSQL does not answer.
        MissingTablesError: The database has no tables yet.
    """
    with transaction(settings.postgres_url) as connection:
        read_suppression_list(connection, settings.suppression_key)
        # Another writer may have passed `target` since it was read. While the lock is held nobody
        # moves the ledger, so the topic as it is now is at least as long as the ledger.
        take_write_lock(connection)
        present = read_topic(settings, target.topic)
        start = open_ledger(connection, present, accept_data_loss=settings.kafka_accept_data_loss)
    with transaction(settings.postgres_url) as connection:
        prepare_session(connection)
        connection.commit()
        yield TopicReader(connection, settings, target, start, on_batch)


def _failure(error: Exception, ranges: Sequence[OffsetRange]) -> Exception:
    return BatchFailedError(ranges, error) if ranges and may_be_in_records(error) else error


def _planned_ends(query: "StreamingQuery", topic: str) -> Offsets:
    """Return partition to end offset of the micro-batch that Spark is working on.

    Offsets without a record are planned too, so the rows do not say where a batch ends.
    """
    execution: Any = query._jsq.streamingQuery()  # noqa: SLF001 - PySpark has no public name
    planned = json.loads(execution.availableOffsets().values().head().json())
    return {int(partition): end for partition, end in planned[topic].items()}


def _query_failure(error: Exception, checkpoint: Path) -> Exception:
    if not checkpoint.exists():
        return TemporaryFilesError(
            f"{checkpoint}, Spark's folder for its offsets, was removed; this step wrote nothing:"
            " run it again"
        )
    return as_platform_error(error)
