"""Messages to Kafka, each of them acknowledged by all in-sync replicas or the run ends.

What belongs here: how something gets into the topics and what counts as done. What is published is
decided in `intake`.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.mastodon.normalise import utc_text
from mastodon_assets.settings import Settings
from mastodon_assets.toots.contract import ContractError, Message, encode, message_key
from mastodon_assets.toots.topics import TopicMissingError

_METADATA_SECONDS = 5
_DELIVERY_SECONDS = 10
_FLUSH_SECONDS = _DELIVERY_SECONDS + 2
_ERROR_LENGTH = 300


class Publisher:
    """Publishes to both topics; made and ended by `publishing`. Used by one thread."""

    def __init__(self, producer: Producer, *, topic: str, errors_topic: str, servers: str) -> None:
        self._producer = producer
        self._topic = topic
        self._errors_topic = errors_topic
        self._servers = servers
        self._failure: str | None = None

    def publish(self, message: Message) -> None:
        """Hand over an upsert or a delete.

        Raises: ContractError (nothing was published), ServiceUnavailableError.
        """
        key = message_key(str(message["instance"]), str(message["id"]))
        self._produce(self._topic, encode(message), key)

    def publish_record(self, value: bytes, key: bytes | None) -> None:
        """Hand over a message that is encoded already and keeps the contract, as it is.

        Raises: ContractError where it is larger than Kafka takes, ServiceUnavailableError.
        """
        self._produce(self._topic, value, key)

    def publish_error(
        self, *, reason: str, error: str, payload: str | None, origin: str, instance: str
    ) -> None:
        """Hand over what could not be published.

        `payload` is JSON text, None where it may not be kept. A payload too large for
        Kafka is left out and the error says so.
        Raises: ServiceUnavailableError.
        """
        document: dict[str, Any] = {
            "reason": reason,
            "error": error[:_ERROR_LENGTH],
            "payload": payload,
            "origin": origin,
            "instance": instance,
            "time": utc_text(datetime.now(UTC)),
        }
        try:
            self._produce(self._errors_topic, _json_bytes(document), None)
        except ContractError as too_large:
            document |= {"error": f"{document['error']}; {too_large}", "payload": None}
            self._produce(self._errors_topic, _json_bytes(document), None)

    def flush(self) -> None:
        """Return when everything handed over is acknowledged.

        Raises: ServiceUnavailableError where something is not.
        """
        self._check_deliveries()
        missing = self._producer.flush(_FLUSH_SECONDS)
        self._check_deliveries()
        if missing:
            raise self._unavailable(f"{missing} messages are not acknowledged")

    def _produce(self, topic: str, value: bytes, key: bytes | None) -> None:
        deadline = time.monotonic() + _DELIVERY_SECONDS
        while True:
            self._check_deliveries()
            try:
                self._producer.produce(topic, value, key, on_delivery=self._on_delivery)
            except BufferError:
                if time.monotonic() > deadline:
                    raise self._unavailable("its queue stays full") from None
                self._producer.poll(0.1)
            except KafkaException as error:
                raise _produce_error(error) from error
            else:
                self._producer.poll(0)
                return

    def _on_delivery(self, error: KafkaError | None, _record: Any) -> None:
        if error is not None and self._failure is None:
            self._failure = error.str()

    def _check_deliveries(self) -> None:
        if self._failure is not None:
            raise self._unavailable(self._failure)

    def _unavailable(self, what: str) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"Kafka at {self._servers} did not take a message ({what}); nothing counts as done"
            " that it has not acknowledged; see: mastodon-assets status"
        )


@contextmanager
def publishing(settings: Settings) -> Iterator[Publisher]:
    """A publisher for the settings' topics; what is still in flight at the end is dropped.

    Call `flush` before the end.
    Raises: ServiceUnavailableError where no broker answers within seconds, TopicMissingError.
    """
    servers = settings.kafka_servers
    producer = Producer(producer_config(servers))
    topics = (settings.kafka_topic, settings.kafka_errors_topic)
    _check_topics(producer, servers, topics)
    try:
        yield Publisher(producer, topic=topics[0], errors_topic=topics[1], servers=servers)
    finally:
        producer.purge()
        producer.flush(1)


def producer_config(servers: str) -> dict[str, Any]:
    """librdkafka's settings: every message once and in order, or an error within seconds."""
    return {
        "bootstrap.servers": servers,
        "client.id": "mastodon-assets-ingest",
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 50,
        "message.timeout.ms": _DELIVERY_SECONDS * 1000,
        # It would print to stderr; what matters arrives as an error or a delivery report.
        "log_level": 0,
    }


def _check_topics(producer: Producer, servers: str, topics: tuple[str, ...]) -> None:
    try:
        # All topics: asking for one by name may make it.
        known = producer.list_topics(timeout=_METADATA_SECONDS).topics
    except KafkaException as error:
        raise ServiceUnavailableError(
            f"Kafka at {servers} does not answer; run: mastodon-assets up"
            " (or look at KAFKA_BOOTSTRAP_SERVERS)"
        ) from error
    for topic in topics:
        if topic not in known:
            raise TopicMissingError(
                f"Kafka at {servers} has no topic {topic}; run: mastodon-assets up"
            )


def _produce_error(error: KafkaException) -> ContractError | ServiceUnavailableError:
    cause = error.args[0]
    if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return ContractError("larger than Kafka takes")
    return ServiceUnavailableError(f"Kafka does not take messages: {cause.str()}")


def _json_bytes(document: dict[str, Any]) -> bytes:
    # ASCII, because half of a surrogate pair has no UTF-8.
    return json.dumps(document).encode("ascii")
