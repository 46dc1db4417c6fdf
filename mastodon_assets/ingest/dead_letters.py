"""Dead letters of the ingester in the topic `mastodon_errors`: listing, replay, removal.

What belongs here: entries of that topic, which `Publisher.publish_error` writes. Only a purge
removes entries. The progress of a replay is the committed position of a consumer group in Kafka,
moved after the replayed messages are acknowledged. The broker forgets it a week after the last
replay (`offsets.retention.minutes`) or with the topic. A replay then begins with the oldest entry
again, which repeats messages and changes no row.
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import Message as Record

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.dead_letter import DeadLetter, NoDeadLetterError, ReplaySummary
from mastodon_assets.contract.identity import full_handle
from mastodon_assets.contract.messages import ContractError, Message, encode
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.homes import REFUSED_AT_HOME, Homes
from mastodon_assets.ingest.policy.admission import AdmissionPolicy, DroppedError, admission_policy
from mastodon_assets.ingest.policy.normalize import NormalizeError
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.publisher import Publisher, producer_config
from mastodon_assets.kafka.topics import Offsets, delete_records, read_topic
from mastodon_assets.warehouse.handle_keys import record_handle_key
from mastodon_assets.warehouse.suppression_list import SuppressionList, watched_suppression_list

REPLAY_GROUP = "mastodon-assets-replay"
_ANSWER_SECONDS = 10
_COMMIT_EVERY = 500
_TIMEOUT_MS = 30_000
_NO_ENTRY = "not an entry of the ingester"
_NO_PAYLOAD = "without a payload"

# What reading a document of another form raises.
_UNREADABLE = (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError)


class _WithheldError(Exception):
    """Raised if the post may not be published under the present consent rules."""


@dataclass(frozen=True)
class _Entry:
    """A dead letter with the server and the origin of its message; None if it has no server."""

    dead_letter: DeadLetter
    instance: str | None
    origin: str


def newest_errors(
    settings: Settings, *, reason: str, limit: int
) -> tuple[list[DeadLetter], Counter[str]]:
    """Read the whole topic for entries whose reason contains `reason`, in any case.

    Returns:
        The newest `limit` of them, newest first, and the counts of all of them by reason.

    Raises:
        ServiceUnavailableError: Kafka does not answer.
        TopicMissingError: Kafka has no such topic.
    """
    counts: Counter[str] = Counter()
    newest: list[tuple[datetime, int, int, DeadLetter]] = []
    with _reading(settings) as consumer:
        for entry in _entries(settings, consumer, _bounds(settings)):
            dead_letter = entry.dead_letter
            if reason.lower() not in dead_letter.reason.lower():
                continue
            counts[dead_letter.reason] += 1
            place = (
                dead_letter.at or datetime.min.replace(tzinfo=UTC),
                dead_letter.partition,
                dead_letter.offset,
            )
            heapq.heappush(newest, (*place, dead_letter))
            if len(newest) > limit:
                heapq.heappop(newest)
    newest.sort(key=lambda found: found[:3], reverse=True)
    return [found[-1] for found in newest], counts


def read_error(settings: Settings, partition: int, offset: int) -> DeadLetter:
    """Read one entry; its payload is the status that could not be published.

    Raises:
        NoDeadLetterError: There is no such entry.
        ServiceUnavailableError: Kafka does not answer.
        TopicMissingError: Kafka has no such topic.
    """
    topic = settings.kafka_errors_topic
    first, end = _bounds(settings).get(partition, (0, 0))
    if first <= offset < end:
        with _reading(settings) as consumer:
            for entry in _entries(settings, consumer, {partition: (offset, offset + 1)}):
                return entry.dead_letter
    raise NoDeadLetterError(
        f"no dead letter at {topic} {partition} {offset}; see: mastodon-assets rejected list"
    )


def replay_errors(
    settings: Settings,
    publisher: Publisher | None,
    *,
    reason: str = "",
    limit: int | None = None,
    again: bool = False,
) -> ReplaySummary:
    """Publish the entries that pass the present admission policy and contract.

    Server, time of receipt and origin are those of the entry, so a repetition is the same message.

    Args:
        settings: Kafka, PostgreSQL and the admission policy.
        publisher: Publishes; None only counts.
        reason: Part of the reason of the entries to replay, in any case. The position then stays,
            because other entries are skipped.
        limit: End after that many published messages.
        again: Begin with the oldest entry, as after an upgrade, not at the end of the last replay.

    Returns:
        The counts of published entries and, by reason, of those that are still refused.

    Raises:
        ServiceUnavailableError: Kafka or PostgreSQL does not answer.
        TopicMissingError: Kafka has no such topic.
        MissingTablesError: PostgreSQL has no such tables.
        WithdrawnKeyError: The suppression list cannot be read with the key of the settings.
    """
    summary = ReplaySummary()
    if publisher is not None:
        record_handle_key(settings)
    policy, suppression_list = admission_policy(settings), watched_suppression_list(settings)
    homes = Homes(settings.postgres_url)
    homes.load()
    bounds = _bounds(settings)
    done: dict[int, int] = {}
    with _reading(settings) as consumer:
        starts = bounds if again else _from_position(consumer, settings, bounds)
        for read, entry in enumerate(_entries(settings, consumer, starts), start=1):
            dead_letter = entry.dead_letter
            if reason.lower() in dead_letter.reason.lower():
                problem = _replay(publisher, entry, policy, suppression_list(), homes)
                if problem is None:
                    summary.published += 1
                else:
                    summary.kept[problem] += 1
            done[dead_letter.partition] = dead_letter.offset + 1
            if read % _COMMIT_EVERY == 0 and publisher is not None:
                _acknowledge(settings, consumer, publisher, {} if reason else done)
            if summary.published == limit:
                break
        if publisher is not None:
            _acknowledge(settings, consumer, publisher, {} if reason else done)
    return summary


def remove_errors(settings: Settings, suppressed: SuppressionList, *, dry_run: bool = False) -> int:
    """Remove the entries of everybody on `suppressed` from the topic.

    Kafka removes records only from the beginning of a partition. Entries to keep that come before
    the last one to remove are published again at the end, byte for byte and with their time. When
    they are acknowledged, the beginning is removed. An interruption in between leaves entries
    twice, and their replay changes no row. Entries written during the removal stay. No client can
    read what is removed; the broker frees the disk when it closes the segment.

    Returns:
        The number of entries to remove, also for a `dry_run`, which removes nothing.

    Raises:
        ServiceUnavailableError: Kafka does not answer.
        TopicMissingError: Kafka has no such topic.
    """
    found = 0
    with _reading(settings) as consumer:
        for partition, (first, end) in _bounds(settings).items():
            places = {
                entry.dead_letter.offset
                for entry in _entries(settings, consumer, {partition: (first, end)})
                if _is_suppressed(entry, suppressed)
            }
            found += len(places)
            if places and not dry_run:
                beginning = {partition: (first, max(places) + 1)}
                kept = (
                    record
                    for record in _records(settings, consumer, beginning)
                    if record.offset() not in places
                )
                _publish_again(settings, kept)
                delete_records(settings, settings.kafka_errors_topic, {partition: max(places) + 1})
    return found


def _is_suppressed(entry: _Entry, suppressed: SuppressionList) -> bool:
    if entry.instance is not None and suppressed.matches(None, entry.instance):
        return True
    if entry.dead_letter.payload is None:
        return False
    try:
        handle = full_handle(json.loads(entry.dead_letter.payload)["account"], entry.instance or "")
    except _UNREADABLE:
        handle = None
    if handle is not None:
        return suppressed.matches(handle, None)
    return suppressed.matches_record(entry.dead_letter.payload)


def _publish_again(settings: Settings, records: Iterator[Record]) -> None:
    """Publish all records; raise ServiceUnavailableError if one is not acknowledged."""
    # Unlike the ingester, a command does not wait for ever.
    config = {**producer_config(settings), "message.timeout.ms": _TIMEOUT_MS}
    failures: list[KafkaError] = []

    def note(failure: KafkaError | None, _record: Record) -> None:
        if failure is not None:
            failures.append(failure)

    producer = Producer(config)
    for record in records:
        while not _hand_over(producer, record, note):
            producer.poll(1)
        producer.poll(0)
    waiting = producer.flush()
    if waiting or failures:
        raise ServiceUnavailableError(
            f"Kafka at {settings.kafka_servers} did not take all dead letters that stay; none was"
            " removed; try again, see: mastodon-assets status"
        )


def _hand_over(producer: Producer, record: Record, note: Any) -> bool:
    """Hand a record to the producer; return False if its queue is full."""
    topic = record.topic()
    assert topic is not None, "it was read"
    kind, milliseconds = record.timestamp()
    try:
        producer.produce(
            topic,
            record.value(),
            record.key(),
            timestamp=milliseconds if kind != TIMESTAMP_NOT_AVAILABLE else 0,
            on_delivery=note,
        )
    except BufferError:
        return False
    return True


@contextmanager
def _reading(settings: Settings) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            **client_config(settings),
            "group.id": REPLAY_GROUP,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        yield consumer
    except KafkaException as error:
        raise ServiceUnavailableError(
            f"Kafka at {settings.kafka_servers} does not answer ({error.args[0].str()}); is it up?"
            " see: mastodon-assets status"
        ) from error
    finally:
        consumer.close()


def _bounds(settings: Settings) -> dict[int, tuple[int, int]]:
    """Return first and end offset of each partition."""
    state = read_topic(settings, settings.kafka_errors_topic)
    return {partition: (state.earliest[partition], end) for partition, end in state.end.items()}


def _from_position(
    consumer: Consumer, settings: Settings, bounds: Mapping[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    places = [TopicPartition(settings.kafka_errors_topic, partition) for partition in bounds]
    starts = dict(bounds)
    for place in consumer.committed(places, timeout=_ANSWER_SECONDS):
        first, end = bounds[place.partition]
        # None is below zero; an offset past the end is from a topic that was created again.
        if first <= place.offset <= end:
            starts[place.partition] = (place.offset, end)
    return starts


def _entries(
    settings: Settings, consumer: Consumer, bounds: Mapping[int, tuple[int, int]]
) -> Iterator[_Entry]:
    """Yield the entries between the bounds, one partition after the other."""
    for record in _records(settings, consumer, bounds):
        partition, offset = record.partition(), record.offset()
        assert partition is not None, "a record without an error has a place"
        assert offset is not None, "a record without an error has a place"
        yield _entry(settings.kafka_errors_topic, partition, offset, record.value())


def _records(
    settings: Settings, consumer: Consumer, bounds: Mapping[int, tuple[int, int]]
) -> Iterator[Record]:
    for partition, (first, end) in bounds.items():
        if first >= end:
            continue
        consumer.assign([TopicPartition(settings.kafka_errors_topic, partition, first)])
        while True:
            record = consumer.poll(_ANSWER_SECONDS)
            if record is None:
                raise ServiceUnavailableError(
                    f"Kafka at {settings.kafka_servers} sends nothing of"
                    f" {settings.kafka_errors_topic}; see: mastodon-assets status"
                )
            failure = record.error()
            if failure is not None:
                raise KafkaException(failure)
            offset = record.offset()
            assert offset is not None, "a record without an error has an offset"
            if offset < end:
                yield record
            if offset >= end - 1:
                break


def _entry(topic: str, partition: int, offset: int, value: bytes | None) -> _Entry:
    """Parse a record; one that the ingester did not write becomes an entry without a server."""
    try:
        document = json.loads(value or b"")
        payload = document["payload"]
        dead_letter = DeadLetter(
            topic,
            partition,
            offset,
            f"{document['reason']}: {document['error']}",
            None if payload is None else payload.encode("utf-8", "surrogatepass"),
            datetime.fromisoformat(document["time"]).astimezone(UTC),
        )
        return _Entry(dead_letter, str(document["instance"]), str(document["origin"]))
    except _UNREADABLE:
        return _Entry(DeadLetter(topic, partition, offset, _NO_ENTRY, value, None), None, "")


def _replay(
    publisher: Publisher | None,
    entry: _Entry,
    policy: AdmissionPolicy,
    suppression_list: SuppressionList,
    homes: Homes,
) -> str | None:
    """Publish an entry; return the reason if it is still refused."""
    if entry.instance is None:
        return _NO_ENTRY
    if entry.dead_letter.payload is None:
        return _NO_PAYLOAD
    try:
        status = json.loads(entry.dead_letter.payload)
        message = _message(entry, status, policy, suppression_list, homes)
        encode(message)
        if publisher is not None:
            publisher.publish(message)
    except (NormalizeError, ContractError, DroppedError, _WithheldError) as error:
        return str(error)
    except (ValueError, RecursionError):
        return "the payload is not JSON"
    return None


def _message(
    entry: _Entry,
    status: Any,
    policy: AdmissionPolicy,
    suppression_list: SuppressionList,
    homes: Homes,
) -> Message:
    """Build the message; raise _WithheldError, DroppedError or NormalizeError if refused."""
    assert entry.instance is not None, "checked by the caller"
    withheld = policy.withheld_reason(
        status, instance=entry.instance, suppression_list=suppression_list
    )
    handle = full_handle(status.get("account"), entry.instance) if withheld is None else None
    if handle is not None and homes.refuses(handle):
        # It has refused since.
        withheld = REFUSED_AT_HOME
    if withheld is not None:
        raise _WithheldError(f"withheld: {withheld}")
    assert entry.dead_letter.at is not None, "an entry of the ingester has a time"
    return policy.to_message(
        status, instance=entry.instance, received_at=entry.dead_letter.at, origin=entry.origin
    )


def _acknowledge(
    settings: Settings, consumer: Consumer, publisher: Publisher, done: Offsets
) -> None:
    """Wait until the messages are acknowledged, then move the position to `done`."""
    publisher.flush()
    if done:
        topic = settings.kafka_errors_topic
        places = [TopicPartition(topic, partition, offset) for partition, offset in done.items()]
        consumer.commit(offsets=places, asynchronous=False)
