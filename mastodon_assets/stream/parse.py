"""Parsing of Kafka records into staged rows, by Spark on the executors.

What belongs here: applying the message contract to records. Nothing is dropped: a record that
breaks the contract becomes a row with a `reject_reason` and its payload.
"""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from mastodon_assets.contract.fast_decoder import decode_fast, fast_columns
from mastodon_assets.contract.messages import ContractError, Message, decode, post_id

if TYPE_CHECKING:
    import pyarrow as pa

_RECORD_FIELDS = [
    T.StructField("topic", T.StringType(), nullable=False),
    T.StructField("partition", T.IntegerType(), nullable=False),
    T.StructField("kafka_offset", T.LongType(), nullable=False),
    T.StructField("payload_hash", T.LongType(), nullable=False),
    T.StructField("reject_reason", T.StringType()),
    T.StructField("payload", T.BinaryType()),
    T.StructField("message_key", T.BinaryType()),
]
_MESSAGE_FIELDS = [
    T.StructField("op", T.StringType()),
    T.StructField("created_at", T.TimestampType()),
    T.StructField("edited_at", T.TimestampType()),
    T.StructField("received_at", T.TimestampType()),
    T.StructField("favourites", T.IntegerType()),
    T.StructField("reblogs", T.IntegerType()),
    T.StructField("replies", T.IntegerType()),
    T.StructField("is_bot", T.BooleanType()),
    T.StructField("is_sensitive", T.BooleanType()),
    T.StructField("is_imported", T.BooleanType()),
    T.StructField("instance", T.StringType()),
    T.StructField("status_id", T.StringType()),
    T.StructField("uri", T.StringType()),
    T.StructField("username", T.StringType()),
    T.StructField("user_id", T.StringType()),
    T.StructField("lang", T.StringType()),
    T.StructField("visibility", T.StringType()),
    T.StructField("in_reply_to_id", T.StringType()),
    T.StructField("hashtags", T.ArrayType(T.StringType())),
    T.StructField("content_txt", T.StringType()),
    T.StructField("content_html", T.StringType()),
    T.StructField("id", T.LongType()),
]
PARSED_SCHEMA = T.StructType(_RECORD_FIELDS + _MESSAGE_FIELDS)
# A row has the rows of one Arrow batch, or the first offset of a partition that was left unread.
_PACKED_SCHEMA = T.StructType(
    [
        T.StructField("rows", T.BinaryType()),
        T.StructField("unread_partition", T.IntegerType()),
        T.StructField("unread_offset", T.LongType()),
    ]
)
# Times that a date has: the years 1 to 9999, in microseconds.
_FIRST_TIME = -62_135_596_800_000_000
_LAST_TIME = 253_402_300_799_999_999
_BAD_TIME = "the record's timestamp is no time in milliseconds"


@dataclass(frozen=True)
class Collected:
    """What was read of a batch.

    Attributes:
        rows: Rows of `PARSED_SCHEMA`.
        unread: Partition to the first offset that was left unread because the batch was too large.
    """

    rows: "pa.Table"
    unread: dict[int, int]


def parse_records(
    records: DataFrame, *, keep_payloads: bool = False, task_bytes: int | None = None
) -> DataFrame:
    """Parse records into rows of `PARSED_SCHEMA`, packed for `collect_rows`.

    The rows of an Arrow batch are one value in Arrow's stream format. Otherwise Spark would convert
    each field to its own format and back.

    Args:
        records: Columns of Spark's Kafka source.
        keep_payloads: Whether `payload` and `message_key` are kept for all records. Otherwise they
            are null, except for rejected records.
        task_bytes: Bytes of keys and values after which a task leaves its other records unread.
            None reads all.
    """

    def parse(batches: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
        _exempt_modules_from_collection()
        read_bytes = 0
        unread: dict[int, int] = {}
        for batch in batches:
            if task_bytes is not None and read_bytes >= task_bytes:
                _keep_first_offsets(batch, unread)
                continue
            read_bytes += batch.column("value").nbytes + batch.column("key").nbytes
            yield _packed(parse_batch(batch, keep_payloads=keep_payloads))
        yield _packed_offsets(unread)

    return records.select(
        "topic",
        "partition",
        F.col("offset").alias("kafka_offset"),
        "timestamp",
        "key",
        "value",
        F.xxhash64("value").alias("payload_hash"),
    ).mapInArrow(parse, _PACKED_SCHEMA)


def collect_rows(parsed: DataFrame) -> Collected:
    """Collect the rows of `parse_records` on the driver."""
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    unread: dict[int, int] = {}
    for packed in parsed.toArrow().to_pylist():
        if packed["rows"] is None:
            unread[packed["unread_partition"]] = packed["unread_offset"]
        else:
            batches += pa.ipc.open_stream(packed["rows"])
    return Collected(pa.Table.from_batches(batches, _arrow_schema()), unread)


def parse_batch(batch: "pa.RecordBatch", *, keep_payloads: bool = False) -> "pa.RecordBatch":
    """Parse one Arrow batch of records; rows of the fast decoder come first.

    Args:
        batch: topic, partition, kafka_offset, timestamp, key, value, payload_hash.
        keep_payloads: See `parse_records`.

    Returns:
        Rows of `PARSED_SCHEMA`. `id` is null if there is no uri.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    times = batch.column("timestamp").cast("timestamp[us]").cast("int64")
    has_time = pc.and_(pc.greater_equal(times, _FIRST_TIME), pc.less_equal(times, _LAST_TIME))
    if not pc.all(has_time).as_py():
        good = parse_batch(batch.filter(has_time), keep_payloads=keep_payloads)
        bad = rejected_rows(batch.filter(pc.invert(has_time)), _BAD_TIME)
        return pa.concat_batches([good, bad])
    posts = [decode_fast(value) for value in batch.column("value").to_pylist()]
    is_fast = pa.array([post is not None for post in posts], pa.bool_())
    try:
        columns = fast_columns([post for post in posts if post is not None])
    except pa.ArrowInvalid:
        # A date that does not exist: the contract's decoder finds it and names the reason.
        return _parse_others(batch, keep_payloads)
    fast = _rows(batch.filter(is_fast), columns, keep_payloads)
    if len(fast) == len(batch):
        return fast
    others = _parse_others(batch.filter(pc.invert(is_fast)), keep_payloads)
    return pa.concat_batches([fast, others])


def rejected_rows(batch: "pa.RecordBatch", reason: str) -> "pa.RecordBatch":
    """Return the rows of records that are all rejected for `reason`."""
    import pyarrow as pa

    columns: dict[str, Any] = {field.name: pa.nulls(len(batch)) for field in _MESSAGE_FIELDS}
    columns["reject_reason"] = [reason] * len(batch)
    return _rows(batch, columns, keep_payloads=True)


def _parse_others(batch: "pa.RecordBatch", keep_payloads: bool) -> "pa.RecordBatch":
    values = batch.column("value").to_pylist()
    times = _datetimes(batch.column("timestamp"))
    parsed = [_parse_record(value, time) for value, time in zip(values, times, strict=True)]
    messages = [message for message, _ in parsed]
    columns: dict[str, Any] = {
        field.name: [message.get(field.name) for message in messages] for field in _MESSAGE_FIELDS
    }
    columns["id"] = [uri and post_id(uri) for uri in columns["uri"]]
    columns["reject_reason"] = [reason for _, reason in parsed]
    return _rows(batch, columns, keep_payloads)


def _rows(
    batch: "pa.RecordBatch", columns: dict[str, Any], keep_payloads: bool
) -> "pa.RecordBatch":
    """Combine the records of `batch` with `columns` of their messages."""
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = _arrow_schema()
    nulls = pa.nulls(len(batch))
    columns = {"reject_reason": nulls, **columns}
    columns["reject_reason"] = _as_array(columns["reject_reason"], pa.string())
    is_kept = pc.or_(pc.is_valid(columns["reject_reason"]), keep_payloads)
    columns["payload"] = pc.if_else(is_kept, batch.column("value"), None)
    columns["message_key"] = pc.if_else(is_kept, batch.column("key"), None)
    for name in ("topic", "partition", "kafka_offset", "payload_hash"):
        columns[name] = batch.column(name)
    arrays = [_as_array(columns[field.name], field.type) for field in schema]
    return pa.record_batch(arrays, schema=schema)


@cache
def _exempt_modules_from_collection() -> None:
    """Keep modules out of the garbage collection that a worker runs after each task.

    It is called once per worker; all modules that the worker needs are imported before.
    """
    import pandas  # noqa: F401 - pyarrow imports it with the first list it converts
    import pyarrow.compute  # noqa: F401

    gc.collect()
    gc.freeze()


def _arrow_schema() -> "pa.Schema":
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(PARSED_SCHEMA, timezone="UTC")


def _as_array(values: Any, kind: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def _packed(rows: "pa.RecordBatch") -> "pa.RecordBatch":
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return pa.record_batch(
        {
            "rows": pa.array([sink.getvalue().to_pybytes()], pa.binary()),
            "unread_partition": pa.nulls(1, pa.int32()),
            "unread_offset": pa.nulls(1, pa.int64()),
        }
    )


def _packed_offsets(unread: dict[int, int]) -> "pa.RecordBatch":
    import pyarrow as pa

    return pa.record_batch(
        {
            "rows": pa.nulls(len(unread), pa.binary()),
            "unread_partition": pa.array(list(unread), pa.int32()),
            "unread_offset": pa.array(list(unread.values()), pa.int64()),
        }
    )


def _keep_first_offsets(batch: "pa.RecordBatch", first: dict[int, int]) -> None:
    """Keep the first offset of each partition in `batch`; records of a partition are in order."""
    partitions = batch.column("partition").to_pylist()
    for partition, offset in zip(partitions, batch.column("kafka_offset").to_pylist(), strict=True):
        first.setdefault(partition, offset)


def _datetimes(times: "pa.Array") -> list[datetime]:
    """Convert as `to_pylist` does, which would take a third of the time of all parsing."""
    naive = times.cast("timestamp[us]").to_numpy(zero_copy_only=False).tolist()
    return [time.replace(tzinfo=UTC) for time in naive]


def _parse_record(value: bytes | None, kafka_time: datetime) -> tuple[Message, str | None]:
    try:
        return decode(value, kafka_time), None
    except ContractError as error:
        return {}, str(error)
