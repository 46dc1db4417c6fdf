"""The replay: a range of offsets is read again by the present code.

What belongs here: reading without moving the ledger. The merge ignores what is stored already, so a
stream may run meanwhile. Missing rows come back, and the dead letters of the range are replaced by
those of the present contract.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pyspark.errors import PySparkException

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.kafka.client import spark_options
from mastodon_assets.kafka.topics import Offsets, TopicState, read_topic
from mastodon_assets.spark.jvm_end import jvm_end_explained
from mastodon_assets.spark.memory import batch_bytes
from mastodon_assets.stream.errors import as_platform_error
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import (
    BatchCounts,
    OffsetRange,
    PayloadsNeededError,
    prepare_session,
    write_batch,
)
from mastodon_assets.stream.parse import Collected, collect_rows, parse_records
from mastodon_assets.warehouse.database import transaction

if TYPE_CHECKING:
    from psycopg import Connection
    from pyspark.sql import SparkSession


class ReplayRangeError(PlatformError):
    """The range has offsets that the topic does not hold, or that were not read yet."""


@dataclass
class ReplaySummary:
    """What was read again.

    Attributes:
        topic: The topic.
        ranges: Partition to first and end offset.
        counts: The messages by outcome.
    """

    topic: str
    ranges: dict[int, tuple[int, int]]
    counts: BatchCounts = field(default_factory=BatchCounts)


@jvm_end_explained()
def replay(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    *,
    partition: int | None = None,
    start: int | None = None,
    end: int | None = None,
    report: Callable[[str], None],
) -> ReplaySummary:
    """Read a range of offsets again.

    Args:
        session: Called only if the range is not empty.
        settings: The settings.
        partition: The partition; None for all.
        start: First offset; None for the earliest that the topic holds.
        end: End offset, exclusive; None for the ledger.
        report: Gets a line per batch.

    Raises:
        ReplayRangeError: The range is not in the topic, or not read yet.
        DataLossError: The topic no longer holds the messages after the ledger.
        TopicMissingError: The broker has no such topic.
        ServiceUnavailableError: Kafka, PostgreSQL or Spark does not answer.
        SparkEndedError: Spark's JVM ended, for lack of memory for instance.
        SuppressionKeyError: The suppression list has entries under another key.
    """
    state = read_topic(settings, settings.kafka_topic)
    with transaction(settings.postgres_url) as connection:
        ledger = open_ledger(connection, state, accept_data_loss=False)
    ranges = chosen_ranges(state, ledger, partition=partition, start=start, end=end)
    summary = ReplaySummary(state.topic, ranges)
    with transaction(settings.postgres_url) as connection:
        prepare_session(connection)
        connection.commit()
        for number, (first, after) in ranges.items():
            begin, most = first, settings.max_offsets_per_batch
            while begin < after:
                started = time.monotonic()
                planned = OffsetRange(state.topic, number, begin, min(begin + most, after))
                batch = _replay_batch(session(), connection, settings, planned)
                summary.counts += batch.counts
                report(
                    f"{state.topic}[{number}]: offsets {begin:,} to {batch.end:,} in"
                    f" {time.monotonic() - started:.1f} s"
                )
                if batch.end < planned.end:
                    # Records of this size fit, and no record is read twice.
                    most = batch.end - begin
                begin = batch.end
    return summary


@dataclass(frozen=True)
class _Batch:
    """A committed batch; `end` is before the planned one if its records were too large."""

    counts: BatchCounts
    end: int


def chosen_ranges(
    state: TopicState,
    ledger: Offsets,
    *,
    partition: int | None,
    start: int | None,
    end: int | None,
) -> dict[int, tuple[int, int]]:
    """Return partition to first and end offset, without empty ranges.

    Raises:
        ReplayRangeError: The range is not in the topic, or not read yet.
    """
    if partition is not None and partition not in state.end:
        raise ReplayRangeError(
            f"{state.topic} has no partition {partition}; it has {_listed(state.end)}"
        )
    ranges = {}
    for number in sorted(state.end) if partition is None else [partition]:
        earliest, read = state.earliest[number], ledger.get(number, 0)
        first = earliest if start is None else start
        after = read if end is None else end
        if first < earliest or after > read:
            raise ReplayRangeError(
                f"{state.topic}[{number}]: offsets {first} to {after} were requested, but the topic"
                f" holds {earliest} and later, and the tables have those before {read}"
            )
        if first < after:
            ranges[number] = (first, after)
    return ranges


def _replay_batch(
    spark: "SparkSession",
    connection: "Connection[Any]",
    settings: Settings,
    planned: OffsetRange,
) -> _Batch:
    def write(collected: Collected) -> _Batch:
        end = collected.unread.get(planned.partition, planned.end)
        with connection.transaction():
            counts = write_batch(
                connection,
                collected.rows,
                None,
                ranges=[replace(planned, end=end)],
                suppression_key=settings.suppression_key,
            )
        return _Batch(counts, end)

    try:
        return write(_read(spark, settings, planned, keep_payloads=False))
    except PayloadsNeededError:
        return write(_read(spark, settings, planned, keep_payloads=True))


def _read(
    spark: "SparkSession",
    settings: Settings,
    planned: OffsetRange,
    *,
    keep_payloads: bool,
) -> Collected:
    topic, partition = planned.topic, planned.partition
    records = (
        spark.read.format("kafka")
        .options(**spark_options(settings))
        .option("assign", json.dumps({topic: [partition]}))
        .option("startingOffsets", json.dumps({topic: {str(partition): planned.start}}))
        .option("endingOffsets", json.dumps({topic: {str(partition): planned.end}}))
        .option("failOnDataLoss", "true")
        .load()
    )
    try:
        # One partition is one task.
        return collect_rows(
            parse_records(records, keep_payloads=keep_payloads, task_bytes=batch_bytes(settings))
        )
    except PySparkException as error:
        raise as_platform_error(error) from error


def _listed(offsets: Offsets) -> str:
    return ", ".join(map(str, sorted(offsets)))
