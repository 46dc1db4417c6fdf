"""Dead letters of the ingester, the topic `mastodon_errors`: read, and put through today's code.

What belongs here: entries of that topic, which `publisher.publish_error` writes. Only a withdrawal
takes entries away; how far a replay got is the committed position of a consumer group in Kafka,
moved after the acknowledgement of what was published. The broker forgets it a week after the last
replay (`offsets.retention.minutes`) or with the topic: then a replay begins with the oldest entry
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
from confluent_kafka.admin import AdminClient

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.dead_letter import DeadLetter, NoDeadLetterError, ReplaySummary
from mastodon_assets.contract.identity import full_handle
from mastodon_assets.contract.messages import ContractError, Message, encode
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.policy.admission import AdmissionPolicy, DroppedError, admission_policy
from mastodon_assets.ingest.policy.normalize import NormalizeError
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.publisher import Publisher, producer_config
from mastodon_assets.kafka.topics import Offsets, read_topic
from mastodon_assets.warehouse.suppression_list import SuppressionList, watched_suppression_list

REPLAY_GROUP = "mastodon-assets-replay"
_ANSWER_SECONDS = 10
_COMMIT_EVERY = 500
_TIMEOUT_MS = 30_000
_NO_ENTRY = "not an entry of the ingester"
_NO_PAYLOAD = "without a payload"


# What reading a document of another form than ours ends in.
_UNREADABLE = (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError)


class _WithheldError(Exception):
    """The post may not be published under today's rules of consent."""


@dataclass(frozen=True)
class _Entry:
    """A dead letter with the server and the origin that its message gets; None for no server."""

    dead_letter: DeadLetter
    instance: str | None
    origin: str


def newest_errors(
    settings: Settings, *, reason: str, limit: int
) -> tuple[list[DeadLetter], Counter[str]]:
    """The newest entries whose reason contains `reason` (any case), and all of those by reason.

    Reads the whole topic. Raises: ServiceUnavailableError, TopicMissingError.
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
    """One entry, its payload being the status that could not be published.

    Raises: NoDeadLetterError, ServiceUnavailableError, TopicMissingError.
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
    """Publish what passes today's rules, normalising and contract, from where the last one ended.

    Server, time of receipt and origin are the entry's own, so that a repetition is the same
    message. `again` begins with the oldest entry, as one does after an upgrade; `limit` ends it
    after so many messages published. With `reason` (contained, any case) the position stays,
    because other entries are passed over. Without a publisher nothing is done, only counted.

    Raises: ServiceUnavailableError, TopicMissingError, MissingTablesError, WithdrawnKeyError.
    """
    summary = ReplaySummary()
    rules, suppression_list = admission_policy(settings), watched_suppression_list(settings)
    bounds = _bounds(settings)
    done: dict[int, int] = {}
    with _reading(settings) as consumer:
        starts = bounds if again else _from_position(consumer, settings, bounds)
        for read, entry in enumerate(_entries(settings, consumer, starts), start=1):
            dead_letter = entry.dead_letter
            if reason.lower() in dead_letter.reason.lower():
                problem = _replay(publisher, entry, rules, suppression_list())
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


def remove_errors(settings: Settings, covered: SuppressionList, *, dry_run: bool = False) -> int:
    """Take the entries of those who are covered out of the topic; how many they are.

    Kafka removes only from the beginning of a partition. What stands before the last entry to go,
    and is to stay, is published again at the end, byte for byte and with its time; when that is
    acknowledged, the beginning goes. Broken off in between, it leaves entries twice, and a replay
    of those changes no row. What is written meanwhile comes after what is looked at and stays. No
    client can read what is gone; the broker frees its disk when it closes the segment.

    Raises: ServiceUnavailableError, TopicMissingError.
    """
    found = 0
    with _reading(settings) as consumer:
        for partition, (first, end) in _bounds(settings).items():
            places = {
                entry.dead_letter.offset
                for entry in _entries(settings, consumer, {partition: (first, end)})
                if _is_covered(entry, covered)
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
                _delete_before(settings, partition, max(places) + 1)
    return found


def _is_covered(entry: _Entry, covered: SuppressionList) -> bool:
    if entry.instance is not None and covered.matches(None, entry.instance):
        return True
    if entry.dead_letter.payload is None:
        return False
    try:
        handle = full_handle(json.loads(entry.dead_letter.payload)["account"], entry.instance or "")
    except _UNREADABLE:
        handle = None
    if handle is not None:
        return covered.matches(handle, None)
    return covered.matches_record(entry.dead_letter.payload)


def _publish_again(settings: Settings, records: Iterator[Record]) -> None:
    """Raises: ServiceUnavailableError where one is not acknowledged; then nothing may go."""
    # Not without end, as the ingester's is: somebody waits for the command.
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
            f"Kafka at {settings.kafka_servers} did not take all dead letters that are to stay;"
            " none was removed"
        )


def _hand_over(producer: Producer, record: Record, note: Any) -> bool:
    """False where the producer's queue is full."""
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


def _delete_before(settings: Settings, partition: int, offset: int) -> None:
    place = TopicPartition(settings.kafka_errors_topic, partition, offset)
    admin = AdminClient(client_config(settings))
    try:
        for future in admin.delete_records([place], request_timeout=_ANSWER_SECONDS).values():
            future.result(2 * _ANSWER_SECONDS)
    except TimeoutError as error:
        raise ServiceUnavailableError(
            f"Kafka at {settings.kafka_servers} does not say that it removed dead letters"
        ) from error


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
    """First and end offset of each partition."""
    state = read_topic(settings, settings.kafka_errors_topic)
    return {partition: (state.earliest[partition], end) for partition, end in state.end.items()}


def _from_position(
    consumer: Consumer, settings: Settings, bounds: Mapping[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    places = [TopicPartition(settings.kafka_errors_topic, partition) for partition in bounds]
    starts = dict(bounds)
    for place in consumer.committed(places, timeout=_ANSWER_SECONDS):
        first, end = bounds[place.partition]
        # None is below zero; past the end it is of a topic that was made anew.
        if first <= place.offset <= end:
            starts[place.partition] = (place.offset, end)
    return starts


def _entries(
    settings: Settings, consumer: Consumer, bounds: Mapping[int, tuple[int, int]]
) -> Iterator[_Entry]:
    """The entries between the bounds, one partition after the other."""
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
    """What stands there; what the ingester cannot have written is an entry without a server."""
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
    rules: AdmissionPolicy,
    suppression_list: SuppressionList,
) -> str | None:
    """Publish it; the reason where it is still refused."""
    if entry.instance is None:
        return _NO_ENTRY
    if entry.dead_letter.payload is None:
        return _NO_PAYLOAD
    try:
        message = _message(entry, json.loads(entry.dead_letter.payload), rules, suppression_list)
        encode(message)
        if publisher is not None:
            publisher.publish(message)
    except (NormalizeError, ContractError, DroppedError, _WithheldError) as error:
        return str(error)
    except (ValueError, RecursionError):
        return "the payload is not JSON"
    return None


def _message(
    entry: _Entry, status: Any, rules: AdmissionPolicy, suppression_list: SuppressionList
) -> Message:
    """Raises: _WithheldError, DroppedError, NormaliseError."""
    assert entry.instance is not None, "checked by the caller"
    withheld = rules.withheld_reason(
        status, instance=entry.instance, suppression_list=suppression_list
    )
    if withheld is not None:
        raise _WithheldError(f"withheld: {withheld}")
    assert entry.dead_letter.at is not None, "an entry of the ingester has a time"
    return rules.to_message(
        status, instance=entry.instance, received_at=entry.dead_letter.at, origin=entry.origin
    )


def _acknowledge(
    settings: Settings, consumer: Consumer, publisher: Publisher, done: Offsets
) -> None:
    """Wait for what was published, then move the position to `done`."""
    publisher.flush()
    if done:
        topic = settings.kafka_errors_topic
        places = [TopicPartition(topic, partition, offset) for partition, offset in done.items()]
        consumer.commit(offsets=places, asynchronous=False)
