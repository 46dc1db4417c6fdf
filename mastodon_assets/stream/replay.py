"""Reading a range of offsets again: the same rows, by today's code.

What belongs here: a replay beside the ledger, which stays where it is. The merge makes nothing of
what is there already, so a stream may run meanwhile; what is missing comes back, and dead letters
of the range are those that today's contract refuses.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspark.errors import PySparkException

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.kafka.client import spark_options
from mastodon_assets.kafka.topics import Offsets, TopicState, read_topic
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import (
    BatchCounts,
    PayloadsNeededError,
    prepare_session,
    write_batch,
)
from mastodon_assets.stream.parse import collect_rows, parse_records
from mastodon_assets.stream.query import as_our_own
from mastodon_assets.warehouse.database import transaction

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg import Connection
    from pyspark.sql import SparkSession


class ReplayRangeError(PlatformError):
    """The range has offsets that the topic does not hold, or that were never read."""


@dataclass
class ReplaySummary:
    """What was read again, partition to first and end offset, and what became of the messages."""

    topic: str
    ranges: dict[int, tuple[int, int]]
    counts: BatchCounts = field(default_factory=BatchCounts)


def replay(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    *,
    partition: int | None = None,
    start: int | None = None,
    end: int | None = None,
    report: Callable[[str], None],
) -> ReplaySummary:
    """Read offsets `start` to `end` (exclusive) of a partition, or of all, once more.

    Without `start` from the earliest that the topic holds, without `end` to the ledger.

    Raises: ReplayRangeError, DataLossError, TopicMissingError, ServiceUnavailableError,
    WithdrawnKeyError.
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
            for begin in range(first, after, settings.max_offsets_per_batch):
                stop = min(begin + settings.max_offsets_per_batch, after)
                started = time.monotonic()
                counts = _replay_batch(session(), connection, settings, number, begin, stop)
                summary.counts += counts
                report(
                    f"{state.topic}[{number}]: offsets {begin:,} to {stop:,} in"
                    f" {time.monotonic() - started:.1f} s"
                )
    return summary


def chosen_ranges(
    state: TopicState,
    ledger: Offsets,
    *,
    partition: int | None,
    start: int | None,
    end: int | None,
) -> dict[int, tuple[int, int]]:
    """Partition to first and end offset; empty ranges are left out.

    Raises: ReplayRangeError.
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
                f"{state.topic}[{number}]: offsets {first} to {after} were asked for; the topic"
                f" holds them from {earliest} on, and the tables have read them up to {read}"
            )
        if first < after:
            ranges[number] = (first, after)
    return ranges


def _replay_batch(
    spark: "SparkSession",
    connection: "Connection[Any]",
    settings: Settings,
    partition: int,
    start: int,
    end: int,
) -> BatchCounts:
    def write(rows: "pa.Table") -> BatchCounts:
        with connection.transaction():
            return write_batch(connection, rows, None, suppression_key=settings.suppression_key)

    try:
        return write(_read(spark, settings, partition, start, end, keep_payloads=False))
    except PayloadsNeededError:
        return write(_read(spark, settings, partition, start, end, keep_payloads=True))


def _read(
    spark: "SparkSession",
    settings: Settings,
    partition: int,
    start: int,
    end: int,
    *,
    keep_payloads: bool,
) -> "pa.Table":
    topic = settings.kafka_topic
    records = (
        spark.read.format("kafka")
        .options(**spark_options(settings))
        .option("assign", json.dumps({topic: [partition]}))
        .option("startingOffsets", json.dumps({topic: {str(partition): start}}))
        .option("endingOffsets", json.dumps({topic: {str(partition): end}}))
        .option("failOnDataLoss", "true")
        .load()
    )
    try:
        return collect_rows(parse_records(records, keep_payloads=keep_payloads))
    except PySparkException as error:
        raise as_our_own(error) from error


def _listed(offsets: Offsets) -> str:
    return ", ".join(map(str, sorted(offsets)))
