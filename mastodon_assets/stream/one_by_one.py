"""Reading offsets without Spark, after a batch failed: in small portions, halved down to a record.

What belongs here: a batch that Spark or the database cannot handle. The records that can be handled
are stored; one that cannot be handled alone is rejected, so that it never stops the stream.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import xxhash
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.kafka.client import client_config
from mastodon_assets.stream.merge import OffsetRange, PayloadsNeededError
from mastodon_assets.stream.parse import parse_batch, rejected_rows

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_PORTION_RECORDS = 2_000
_PORTION_BYTES = 8 * 2**20
_POLL_SECONDS = 10
_REASON_LENGTH = 300
# More of them are a fault of the program or the database, not of the records.
_MOST_REJECTED = 100
# Microseconds that an Arrow timestamp holds.
_LONGEST = 2**63 - 1

Write = Callable[["pa.Table", OffsetRange], None]


class UnmanageableRecordsError(PlatformError):
    """Many records of a batch cannot be handled."""


class BatchFailedError(Exception):
    """A batch failed for a reason that may be in its records.

    Its text does not have the message of the cause, which may quote a post: PostgreSQL's do.
    """

    def __init__(self, ranges: Sequence[OffsetRange], cause: Exception) -> None:
        frames = traceback.extract_tb(cause.__traceback__)
        place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
        super().__init__(f"{type(cause).__name__}{place}")
        self.ranges = ranges
        self.cause = cause


def may_be_in_records(error: Exception) -> bool:
    """Return whether a failure may be caused by records: not an outage, a conflict or a setting."""
    from py4j.protocol import Py4JNetworkError  # type: ignore[import-untyped]

    if isinstance(error, psycopg.Error):
        return isinstance(
            error,
            psycopg.DataError | psycopg.IntegrityError | psycopg.errors.ProgramLimitExceeded,
        )
    others = PlatformError | PayloadsNeededError | Py4JNetworkError | OSError
    return not isinstance(error, others)


def write_one_by_one(settings: Settings, failed: BatchFailedError, write: Write) -> int:
    """Read the offsets of a failed batch again and write them in portions.

    Args:
        settings: The settings.
        failed: The batch.
        write: Writes rows and moves the ledger by their range, in one transaction.

    Returns:
        Records that could not be handled and were rejected.

    Raises:
        ServiceUnavailableError: Kafka does not answer.
        UnmanageableRecordsError: More than 100 records cannot be handled.
    """
    portions = _Portions(failed, write)
    for offsets in failed.ranges:
        for records, part in _read(settings, offsets):
            portions.write(records, part)
    return portions.rejected


class _Portions:
    def __init__(self, failed: BatchFailedError, write: Write) -> None:
        self.rejected = 0
        self._failed = failed
        self._write = write

    def write(self, records: Sequence[Message], offsets: OffsetRange) -> None:
        """Write a portion; after a failure its halves."""
        try:
            self._write(_rows(records), offsets)
        except Exception as error:
            if not may_be_in_records(error) or not records:
                raise
            if len(records) == 1:
                self._reject(records[0], offsets, error)
                return
            middle = len(records) // 2
            border = _offset(records[middle])
            first = OffsetRange(offsets.topic, offsets.partition, offsets.start, border)
            second = OffsetRange(offsets.topic, offsets.partition, border, offsets.end)
            self.write(records[:middle], first)
            self.write(records[middle:], second)

    def _reject(self, record: Message, offsets: OffsetRange, error: Exception) -> None:
        self.rejected += 1
        if self.rejected > _MOST_REJECTED:
            raise UnmanageableRecordsError(
                f"more than {_MOST_REJECTED} records of a batch cannot be handled ({self._failed});"
                " those are rejected, the others wait in Kafka; see: mastodon-assets rejected list"
            ) from None
        lines = str(error).strip().splitlines() or [""]
        reason = f"cannot be handled: {type(error).__name__}: {lines[0]}"[:_REASON_LENGTH]
        # The reason may quote the post, and no purge reaches a log.
        logger.warning(
            "%s[%s] offset %s is rejected (%s); see: mastodon-assets rejected list",
            offsets.topic,
            offsets.partition,
            _offset(record),
            type(error).__name__,
        )
        self._write(_as_table(rejected_rows(_as_batch([record]), reason)), offsets)


def _read(settings: Settings, offsets: OffsetRange) -> Iterator[tuple[list[Message], OffsetRange]]:
    """Yield the records of `offsets` in portions, each with its part of the offsets."""
    config = {
        **client_config(settings),
        "group.id": "mastodon_assets-one-by-one",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    with closing(Consumer(config)) as consumer:
        consumer.assign([TopicPartition(offsets.topic, offsets.partition, offsets.start)])
        start = offsets.start
        portion: list[Message] = []
        portion_bytes = 0
        for record in _records(consumer, offsets.end):
            portion.append(record)
            portion_bytes += len(record)
            if len(portion) == _PORTION_RECORDS or portion_bytes >= _PORTION_BYTES:
                end = _offset(record) + 1
                yield portion, OffsetRange(offsets.topic, offsets.partition, start, end)
                start, portion, portion_bytes = end, [], 0
        if start < offsets.end:
            yield portion, OffsetRange(offsets.topic, offsets.partition, start, offsets.end)


def _records(consumer: Consumer, end: int) -> Iterator[Message]:
    """Yield records before the offset `end`; the last offsets may have none."""
    while True:
        record = consumer.poll(_POLL_SECONDS)
        if record is None:
            raise ServiceUnavailableError(
                f"Kafka sent nothing for {_POLL_SECONDS} s; this step wrote nothing: run it again"
            )
        error = record.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - it has no public name
                return
            raise ServiceUnavailableError(
                f"reading Kafka failed ({error.str()}); run it again"
            ) from KafkaException(error)
        if _offset(record) >= end:
            return
        yield record
        if _offset(record) == end - 1:
            return


def _rows(records: Sequence[Message]) -> "pa.Table":
    return _as_table(parse_batch(_as_batch(records), keep_payloads=True))


def _as_table(rows: "pa.RecordBatch") -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_batches([rows])


def _as_batch(records: Sequence[Message]) -> "pa.RecordBatch":
    """Return records with the columns of Spark's Kafka source, as `parse_batch` takes them."""
    import pyarrow as pa

    return pa.RecordBatch.from_pydict(
        {
            "topic": pa.array([record.topic() for record in records], pa.string()),
            "partition": pa.array([record.partition() for record in records], pa.int32()),
            "kafka_offset": pa.array(map(_offset, records), pa.int64()),
            "timestamp": pa.array(map(_microseconds, records), pa.int64()).cast(
                pa.timestamp("us", "UTC")
            ),
            "key": pa.array([record.key() for record in records], pa.binary()),
            "value": pa.array([record.value() for record in records], pa.binary()),
            "payload_hash": pa.array(map(_payload_hash, records), pa.int64()),
        }
    )


def _offset(record: Message) -> int:
    offset = record.offset()
    assert offset is not None, "a record that was read has one"
    return offset


def _microseconds(record: Message) -> int:
    """Return the record's time; one that does not fit is the longest, which no date has."""
    _, milliseconds = record.timestamp()
    return max(-_LONGEST, min(_LONGEST, milliseconds * 1000))


def _payload_hash(record: Message) -> int:
    """Return Spark's `xxhash64` of the value: signed, and of null its seed."""
    value = record.value()
    if value is None:
        return 42
    unsigned = xxhash.xxh64_intdigest(value, seed=42)
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned
