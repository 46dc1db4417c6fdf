"""Streaming queries that begin at the ledger, and the one writer behind each.

What belongs here: starting, feeding and ending one Structured Streaming query. Its checkpoint
folder is new and empty each time: a kept one would make Spark go on from there instead of from the
ledger. When to read, and what to do after a failure, stands in `drain` and `stream`.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.errors import StreamingQueryException

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.kafka.client import spark_options
from mastodon_assets.kafka.topics import Offsets, TopicIdentity, TopicState, read_topic
from mastodon_assets.spark.session import file_uri, is_connect, shown_master
from mastodon_assets.stream.ledger import LedgerConflictError, lag, open_ledger, read_ledger
from mastodon_assets.stream.merge import (
    BatchCounts,
    PayloadsNeededError,
    offset_ranges,
    prepare_session,
    write_batch,
)
from mastodon_assets.stream.parse import collect_rows, parse_records
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.suppression_list import read_suppression_list

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg import Connection
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

_CONFLICTS_IN_A_ROW = 5
# Kafka's own 500 records and 1 MB a question cost a seventh of the executors' time.
_IN_LARGE_PORTIONS = {
    "kafka.max.poll.records": "10000",
    "kafka.max.partition.fetch.bytes": str(8 * 2**20),
    "kafka.receive.buffer.bytes": str(2**20),
}
# Spark would note each batch's offsets on disk twice, and wait for it, a fifth of a small batch's
# time. Nobody reads these notes: the ledger says where a start begins. So they are written beside
# the batches, and seldom. Spark's check is of sinks that rely on them; a bounded query cannot.
_WITHOUT_WAITING_FOR_NOTES = {
    "asyncProgressTrackingEnabled": "true",
    "asyncProgressTrackingCheckpointIntervalMs": "60000",
    "_asyncProgressTrackingOverrideSinkSupportCheck": "true",
}
_CONFLICT_PAUSE_SECONDS = 1


# What a batch's rows lead to beside themselves: made where Spark is, written where they are.
Addition = Callable[["Connection[Any]"], None]
Derive = Callable[["pa.Table"], Addition]


class StagingError(ServiceUnavailableError):
    """A folder for temporary files is full, or its content was taken away."""


class TopicReplacedError(ServiceUnavailableError):
    """The topic is another one of the same name; the next start says what that loses."""


@dataclass(frozen=True)
class Batch:
    """A committed micro-batch; `seconds` from its first record read to its commit."""

    counts: BatchCounts
    seconds: float


class RunningQuery:
    """A query of Spark's and the writer behind it."""

    def __init__(self, query: "StreamingQuery", last_write: Callable[[], "Future[None]"]) -> None:
        self._query = query
        self._last_write = last_write

    def wait(self, seconds: int | None = None) -> None:
        """Wait for the query's end, `seconds` at most. Raises: what ended query or writer."""
        self._query.awaitTermination(seconds)
        # Spark would meet a writer's failure only with the next batch, which may not come.
        if (written := self._last_write()).done():
            written.result()


class Reader:
    """Queries from the ledger on, and the one writer behind them; made by `opened_reader`.

    `start` is the ledger at the beginning, `position` where this reader has brought it to.

    Spark works on a batch while the database takes the one before: the writer is a thread that has
    one batch at most. That is safe because the ledger, not Spark, says where a restart begins; a
    query has ended when its writer has.
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

    def ledger(self) -> dict[int, int]:
        """Where the tables are now. Not to be asked while a query runs: its writer has the
        connection.
        """
        with self.connection.transaction():
            self.position = read_ledger(self.connection, self.target.topic)
        return self.position

    def lag(self) -> int:
        """Messages between the ledger and the end that the topic had at the start."""
        return lag(self.ledger(), self.target.end)

    def until_no_conflict(
        self, read: Callable[[bool], None], *, give_way: Callable[[], None] | None = None
    ) -> None:
        """Run `read(keep_payloads)` until it ends without a conflict.

        Another writer that moves the ledger meanwhile is no error, unless it does so each time;
        `give_way` is called then before the next attempt. Payloads are kept only where the tables
        refused a row of the attempt before. Raises: LedgerConflictError after five in a row.
        """
        conflicts = 0
        keep_payloads = False
        while True:
            batches = self.batches
            try:
                return read(keep_payloads)
            except PayloadsNeededError:
                keep_payloads = True
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
        derive: Derive | None = None,
        **trigger: Any,
    ) -> "Iterator[RunningQuery]":
        """A started query from the ledger on; stopped, and its last batch written, at the end.

        What `derive` makes of a batch's rows is called in the transaction that has stored them.
        Raises: ServiceUnavailableError where Kafka fails it; what the writer raises; SettingsError
        for Spark Connect, whose batches do not come to this process.
        """
        if is_connect(self._settings):
            raise SettingsError(
                f"SPARK_MASTER={shown_master(self._settings)}: Spark Connect cannot hand the"
                " stream's batches to the writer; set local[*] or spark://… for stream and"
                " toots_raw"
            )
        starting = json.dumps({self.target.topic: self._starting_offsets()})
        records = (
            spark.readStream.format("kafka")
            .options(**spark_options(self._settings), **_IN_LARGE_PORTIONS)
            .option("subscribe", self.target.topic)
            .option("startingOffsets", starting)
            .option("failOnDataLoss", "true")
            .option("maxOffsetsPerTrigger", self._settings.max_offsets_per_batch)
            .load()
        )
        with (
            staging_folder("mastodon_assets-checkpoint-") as checkpoint,
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="sink") as writer,
        ):
            last: Future[None] = Future()
            last.set_result(None)
            is_stopping = False

            def hand_over(parsed: "DataFrame", _batch_id: int) -> None:
                # After a failure nothing is read any more until the query is stopped. It is not
                # raised here: Spark would write a traceback to the log, and search its text by a
                # regular expression that runs out of stack on a long one (`PROXY_ERROR` in its
                # StreamExecution); the query would then end as if all were read.
                nonlocal last
                if last.done() and last.exception() is not None:
                    return
                started = time.monotonic()
                try:
                    rows = collect_rows(parsed)
                    addition = derive(rows) if derive else None
                    last.result()
                except Exception as error:
                    if not is_stopping:
                        last = _failed(as_our_own(error))
                    return
                last = writer.submit(self._write, rows, addition, started)

            query = (
                parse_records(
                    # A task more than there are cores would only cost its start.
                    records.coalesce(spark.sparkContext.defaultParallelism),
                    keep_payloads=keep_payloads,
                )
                .writeStream.foreachBatch(hand_over)
                .options(**({} if "availableNow" in trigger else _WITHOUT_WAITING_FOR_NOTES))
                .option("checkpointLocation", file_uri(checkpoint))
                .trigger(**trigger)
                .start()
            )
            try:
                yield RunningQuery(query, lambda: last)
            except StreamingQueryException as error:
                # Spark hands on what a batch raised as text only; its future has the exception.
                last.result()
                if not checkpoint.exists():
                    raise StagingError(
                        f"{checkpoint}, where Spark notes its batches, was taken away; this step"
                        " wrote nothing: run it again"
                    ) from error
                raise as_our_own(error) from error
            finally:
                is_stopping = True
                query.stop()
            last.result()

    def _starting_offsets(self) -> dict[str, int]:
        ledger = self.ledger()
        return {str(partition): ledger[partition] for partition in self.target.end}

    def _write(self, rows: "pa.Table", addition: Addition | None, started: float) -> None:
        counts = self._commit(rows, addition)
        self.batches += 1
        self._on_batch(Batch(counts, time.monotonic() - started))

    def _commit(self, rows: "pa.Table", addition: Addition | None) -> BatchCounts:
        # Asked after the records were read: where it is the same now, it was when they were.
        topic_id = self._topic_id.ask()
        if topic_id != self.target.topic_id:
            raise TopicReplacedError(
                f"{self.target.topic} was made anew while it was read; this batch wrote nothing:"
                " run it again"
            )
        with self.connection.transaction():
            counts = write_batch(
                self.connection,
                rows,
                {self.target.topic: topic_id},
                suppression_key=self._settings.suppression_key,
            )
            if addition:
                addition(self.connection)
        ends = {partition: end for _, partition, _, end in offset_ranges(rows)}
        self.position = {**self.position, **ends}
        return counts


@contextmanager
def opened_reader(
    settings: Settings, target: TopicState, on_batch: Callable[[Batch], None]
) -> Iterator[Reader]:
    """A reader of `target` with a connection of its own, its ledger compared with the broker.

    Raises: DataLossError, WithdrawnKeyError, ServiceUnavailableError, MissingTablesError.
    """
    with transaction(settings.postgres_url) as connection:
        read_suppression_list(connection, settings.suppression_key)
        # Since `target` was read another writer may have gone past it. While the lock is held none
        # moves the ledger, so that the topic of now is at least as long.
        take_write_lock(connection)
        present = read_topic(settings, target.topic)
        start = open_ledger(connection, present, accept_data_loss=settings.kafka_accept_data_loss)
    with transaction(settings.postgres_url) as connection:
        prepare_session(connection)
        connection.commit()
        yield Reader(connection, settings, target, start, on_batch)


def _failed(error: Exception) -> "Future[None]":
    future: Future[None] = Future()
    future.set_exception(error)
    return future


@contextmanager
def staging_folder(prefix: str) -> Iterator[Path]:
    """A new folder for temporary files, removed at the end. Raises: StagingError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise as_our_own(error) from error
    with folder as name:
        yield Path(name)


def as_our_own(error: Exception) -> Exception:
    """Kafka's failures, and those of temporary files, as an error that says so.

    Any other stays what it is.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return StagingError(
            f"{error.filename}: {error.strerror}; this step wrote nothing: make room, or set TMPDIR"
            " to another folder, then run it again"
        )
    if "No space left on device" in str(error):
        return StagingError(
            f"no space left for Spark's temporary files (in {tempfile.gettempdir()}, or where"
            " SPARK_LOCAL_DIRS says); this step wrote nothing: make room, then run it again"
        )
    if "Assigned: Set(" in str(error):
        return ServiceUnavailableError(
            "the topic got another partition while its reading began; this step wrote nothing: run"
            " it again"
        )
    if "not available in Kafka any more" in str(error):
        return ServiceUnavailableError(
            "Kafka has lost messages that were to be read next; this step wrote nothing: run it"
            " again, and it says which"
        )
    if "org.apache.kafka" not in str(error) and "KAFKA" not in str(error):
        return error
    lines = [line.strip() for line in str(error).splitlines() if "afka" in line]
    return ServiceUnavailableError(
        f"Kafka broke off ({lines[0][:300]}); this batch wrote nothing: run it again"
    )
