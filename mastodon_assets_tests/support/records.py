"""Kafka records made by hand, and their rows as Spark would give them, without Spark."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import xxhash

from mastodon_assets.stream.parse import parse_batch

TOPIC = "mastodon_stream"
RECEIVED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def upsert(status_id: str = "1", **changes: Any) -> dict[str, Any]:
    """A message that keeps the contract, with `changes`."""
    instance = changes.get("instance", "one.example")
    message = {
        "v": 1,
        "op": "upsert",
        "instance": instance,
        "id": status_id,
        "uri": f"https://one.example/users/ada/statuses/{status_id}",
        "url": f"https://one.example/@ada/{status_id}",
        "created_at": "2026-11-20T11:59:00.000Z",
        "edited_at": None,
        "received_at": "2026-11-20T12:00:00.000Z",
        "username": "ada@one.example",
        "user_id": "7",
        "language": "en",
        "content_html": "<p>hello</p>",
        "content": "hello",
        "hashtags": ["news"],
        "favourites": 0,
        "reblogs": 0,
        "replies": 0,
        "visibility": "public",
        "sensitive": False,
        "spoiler_text": "",
        "in_reply_to_id": None,
        "bot": False,
        "origin": "stream",
    }
    return {**message, **changes}


def delete(status_id: str = "1", **changes: Any) -> dict[str, Any]:
    """A delete that keeps the contract, with `changes`."""
    message = {
        "v": 1,
        "op": "delete",
        "instance": "one.example",
        "id": status_id,
        "received_at": "2026-11-20T12:30:00.000Z",
        "origin": "stream",
    }
    return {**message, **changes}


@dataclass(frozen=True)
class Record:
    """One record of the topic."""

    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = b"key"


def as_value(message: Any) -> bytes | None:
    """JSON bytes of a message; bytes and None are taken as they are."""
    return message if message is None or isinstance(message, bytes) else orjson.dumps(message)


def on_partition(messages: Iterable[Any], partition: int = 0, first: int = 0) -> list[Record]:
    """The messages as consecutive records of one partition."""
    return [
        Record(partition, offset, as_value(message))
        for offset, message in enumerate(messages, start=first)
    ]


def staged(
    records: Sequence[Record], *, keep_payloads: bool = False, topic: str = TOPIC
) -> pa.Table:
    """The rows that `parse.parse_records` gives for these records."""
    batch = pa.RecordBatch.from_pydict(
        {
            "topic": pa.array([topic] * len(records)),
            "partition": pa.array([record.partition for record in records], pa.int32()),
            "kafka_offset": pa.array([record.offset for record in records], pa.int64()),
            "timestamp": pa.array([RECEIVED] * len(records), pa.timestamp("us", "UTC")),
            "key": pa.array([record.key for record in records], pa.binary()),
            "value": pa.array([record.value for record in records], pa.binary()),
            "payload_hash": pa.array([_hash(record.value) for record in records]),
        }
    )
    rows = parse_batch(batch, keep_payloads=keep_payloads)
    return pa.Table.from_batches([rows])


def _hash(value: bytes | None) -> int:
    """Spark's `xxhash64`: signed, and of null its seed."""
    if value is None:
        return 42
    unsigned = xxhash.xxh64_intdigest(value, seed=42)
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned
