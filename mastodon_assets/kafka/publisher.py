"""The publisher of messages to Kafka. It keeps each one until all in-sync replicas acknowledge it.

What belongs here: how a message gets into a topic, and when it counts as done. What is published is
decided in `ingest.handler`.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.messages import ContractError, Message, encode, message_key
from mastodon_assets.contract.times import utc_text
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.kafka.client import Refusals, client_config
from mastodon_assets.kafka.topics import MAX_ERROR_BYTES, TopicMissingError

logger = logging.getLogger(__name__)

_METADATA_SECONDS = 5
FLUSH_SECONDS = 12
_STUCK_SECONDS = 10
_RENEWAL_SECONDS = 5
_MAX_IN_FLIGHT = 10_000
_MAX_KILOBYTES_IN_FLIGHT = 64 * 1024
# What surrounds key and value in a record.
_ENVELOPE_BYTES = 1024
# Kafka's default limit of a topic.
_MAX_MESSAGE_BYTES = 1024 * 1024 - _ENVELOPE_BYTES
_ERROR_LENGTH = 300
_TOO_LARGE = "larger than Kafka accepts"
_NO_ANSWER = "no answer"


@dataclass(frozen=True)
class _Record:
    topic: str
    value: bytes
    key: bytes | None


class Publisher:
    """Publishes to both topics. `publishing` opens and closes it; one thread uses it.

    Kafka may go away and come back: messages that it did not take are kept and sent again. The
    number of waiting messages is bounded if nothing is published while `has_room` is false.
    `failure` is why Kafka takes none, if it takes none.
    """

    def __init__(
        self, new_producer: Callable[[], Producer], *, topic: str, errors_topic: str, servers: str
    ) -> None:
        self._new_producer = new_producer
        self._producer = new_producer()
        self._topic = topic
        self._errors_topic = errors_topic
        self._servers = servers
        self._undelivered: list[_Record] = []
        self.failure = _NO_ANSWER
        self._progress_at = self._opened_at = time.monotonic()

    def has_room(self) -> bool:
        """Return whether more may be published."""
        return not self._undelivered and len(self._producer) < _MAX_IN_FLIGHT

    def is_stuck(self) -> bool:
        """Return whether Kafka refuses messages or acknowledges none while some wait."""
        self._producer.poll(0)
        if self._undelivered:
            return True
        if len(self._producer) == 0:
            self._progress_at = time.monotonic()
        return time.monotonic() - self._progress_at > _STUCK_SECONDS

    def in_flight(self) -> int:
        """Return the number of messages without acknowledgement. Any thread may call it."""
        return len(self._producer) + len(self._undelivered)

    def seconds_unacknowledged(self) -> float:
        """Return how long messages have waited without an acknowledgement; for any thread."""
        return time.monotonic() - self._progress_at if self.in_flight() else 0.0

    def wait(self, seconds: float) -> None:
        """Wait for acknowledgements; from time to time send refused messages by a new producer."""
        self._producer.poll(seconds)
        if self._undelivered and time.monotonic() - self._opened_at > _RENEWAL_SECONDS:
            self._renew()

    def publish(self, message: Message) -> None:
        """Publish an upsert or a delete.

        Raises:
            ContractError: The message breaks the contract; nothing was published.
        """
        key = message_key(str(message["instance"]), str(message["id"]))
        self.publish_record(encode(message), key)

    def publish_record(self, value: bytes, key: bytes | None) -> None:
        """Publish a message that is already encoded and follows the contract, unchanged.

        Raises:
            ContractError: It is larger than Kafka accepts.
        """
        if len(value) + len(key or b"") > _MAX_MESSAGE_BYTES:
            raise ContractError(_TOO_LARGE)
        self._produce(self._topic, value, key)

    def publish_error(
        self, *, reason: str, error: str, payload: str | None, origin: str, instance: str
    ) -> None:
        """Publish a dead letter for something that could not be published.

        The errors topic accepts larger messages than the stream's, so that a post that is too large
        for the stream keeps its payload. A payload that is too large for it as well is left out,
        and the error says so.

        Args:
            reason: The kind of failure, one word.
            error: The failure in a sentence; cut to 300 characters.
            payload: JSON text; None if it may not be kept.
            origin: `stream`, `backfill`, `import`, `simulator` or `replay`.
            instance: The server that was read.
        """
        document: dict[str, Any] = {
            "reason": reason,
            "error": error[:_ERROR_LENGTH],
            "payload": payload,
            "origin": origin,
            "instance": instance,
            "time": utc_text(datetime.now(UTC)),
        }
        value = _json_bytes(document)
        if len(value) > MAX_ERROR_BYTES:
            value = _without_payload(document)
        self._produce(self._errors_topic, value, None)

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until every message is acknowledged.

        Raises:
            ServiceUnavailableError: Some messages are not acknowledged after `seconds`.
        """
        missing = self._producer.flush(seconds) + len(self._undelivered)
        if missing:
            raise self.unavailable(f"{missing} messages are not acknowledged: {self.failure}")

    def unavailable(self, what: str) -> ServiceUnavailableError:
        """Return the error for a run that cannot wait."""
        return ServiceUnavailableError(
            f"Kafka at {self._servers} did not accept a message ({what}); messages without its"
            " acknowledgement do not count as published; see: mastodon-assets status"
        )

    def close(self) -> None:
        """Drop the messages that are still in flight."""
        self._producer.purge()
        self._producer.flush(1)

    def _produce(self, topic: str, value: bytes, key: bytes | None) -> None:
        if self._undelivered:
            # `wait` sends them all. To try each would take ten seconds per message.
            return self._keep(_Record(topic, value, key), self.failure)
        if len(self._producer) == 0:
            self._progress_at = time.monotonic()
        deadline = time.monotonic() + _STUCK_SECONDS
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._on_delivery)
            except BufferError:
                if time.monotonic() > deadline:
                    return self._keep(_Record(topic, value, key), "the producer's queue stays full")
                self._producer.poll(0.1)
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise ContractError(_TOO_LARGE) from error
                return self._keep(_Record(topic, value, key), cause.str())
            else:
                self._producer.poll(0)
                return None

    def _on_delivery(self, error: KafkaError | None, record: Any) -> None:
        if error is None:
            self._progress_at = time.monotonic()
        elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            # The topic accepts less than the producer: it would refuse the message for ever.
            document = json.loads(record.value())
            if record.topic() == self._errors_topic:
                if document["payload"] is not None:
                    self._produce(self._errors_topic, _without_payload(document), None)
                else:
                    logger.error("topic %s refuses a dead letter as too large", self._errors_topic)
                return
            self.publish_error(
                reason="contract",
                error=_TOO_LARGE,
                payload=None,
                origin=document["origin"],
                instance=document["instance"],
            )
        else:
            self._keep(_Record(record.topic(), record.value(), record.key()), error.str())

    def _keep(self, record: _Record, failure: str) -> None:
        self._undelivered.append(record)
        self.failure = failure

    def _renew(self) -> None:
        # A producer accepts nothing after a fatal error. Messages in flight come back undelivered
        # and may reach Kafka twice, which changes no table.
        self.close()
        waiting, self._undelivered = self._undelivered, []
        self._producer, self.failure = self._new_producer(), _NO_ANSWER
        self._opened_at = time.monotonic()
        for record in waiting:
            self._produce(record.topic, record.value, record.key)


@contextmanager
def publishing(settings: Settings) -> Iterator[Publisher]:
    """Open a publisher for the topics of the settings.

    Call `flush` before the end: messages that are still in flight are dropped.

    Raises:
        ServiceUnavailableError: No broker answers within seconds, or it refuses access.
        TopicMissingError: A topic does not exist.
    """
    topics = (settings.kafka_topic, settings.kafka_errors_topic)
    _check_topics(settings, topics)
    publisher = Publisher(
        lambda: Producer(producer_config(settings)),
        topic=topics[0],
        errors_topic=topics[1],
        servers=settings.kafka_servers,
    )
    try:
        yield publisher
    finally:
        publisher.close()


def producer_config(settings: Settings) -> dict[str, Any]:
    """Return the producer's configuration: each message once, in order, without a time limit."""
    return {
        **client_config(settings),
        "client.id": "mastodon-assets-ingest",
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 50,
        "message.timeout.ms": 0,
        "message.max.bytes": MAX_ERROR_BYTES + _ENVELOPE_BYTES,
        "queue.buffering.max.kbytes": _MAX_KILOBYTES_IN_FLIGHT,
    }


def _check_topics(settings: Settings, topics: tuple[str, ...]) -> None:
    servers, refusals = settings.kafka_servers, Refusals()
    producer = Producer(client_config(settings, refusals))
    try:
        # All topics: a request for one by name may create it.
        known = producer.list_topics(timeout=_METADATA_SECONDS).topics
    except KafkaException as error:
        producer.poll(0)
        raise refusals.unavailable(servers) from error
    for topic in topics:
        if topic not in known:
            raise TopicMissingError(
                f"Kafka at {servers} has no topic {topic}; run: mastodon-assets up"
            )


def _json_bytes(document: dict[str, Any]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # Half of a surrogate pair has no UTF-8.
        return json.dumps(document).encode("ascii")


def _without_payload(document: dict[str, Any]) -> bytes:
    error = f"{document['error']}; the payload is {_TOO_LARGE}"
    return _json_bytes({**document, "error": error, "payload": None})
