"""What the broker says of a topic: its id, and each partition's first and end offset.

What belongs here: bounded questions to Kafka. What follows from the answers stands in `ledger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.kafka_client import Refusals, client_config
from mastodon_assets.settings import Settings

Offsets = Mapping[int, int]

_RETRY_SECONDS = 0.2


class TopicMissingError(PlatformError):
    """The topic does not exist on this broker."""


@dataclass(frozen=True)
class TopicState:
    """`earliest` and `end` map partition to offset; `end` is the offset the next record gets."""

    topic: str
    topic_id: str
    earliest: Offsets
    end: Offsets


def read_topic(settings: Settings, topic: str, *, timeout: float = 5) -> TopicState:
    """Ask the broker, within `timeout` seconds a question.

    Raises: ServiceUnavailableError where it does not answer or refuses us, TopicMissingError.
    """
    servers, refusals = settings.kafka_servers, Refusals()
    admin = AdminClient(client_config(settings, refusals))
    try:
        # Metadata first: it fails after `timeout` where nothing listens, the others wait longer.
        known = admin.list_topics(topic, timeout=timeout).topics[topic]
        if known.error is not None:
            raise TopicMissingError(
                f"Kafka at {servers} has no topic {topic}; run: mastodon-assets up"
            )
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout)
        partitions = sorted(known.partitions)
        return TopicState(
            topic=topic,
            topic_id=str(described[topic].result(timeout).topic_id),
            earliest=_offsets(admin, topic, partitions, OffsetSpec.earliest(), timeout),
            end=_offsets(admin, topic, partitions, OffsetSpec.latest(), timeout),
        )
    except (KafkaException, TimeoutError) as error:
        admin.poll(0)
        raise refusals.unavailable(servers) from error


class TopicIdentity:
    """Asks for a topic's id again and again, over one connection."""

    def __init__(self, settings: Settings, topic: str, *, timeout: float = 5) -> None:
        self._admin = AdminClient(client_config(settings))
        self._servers = settings.kafka_servers
        self._topic = topic
        self._timeout = timeout

    def ask(self) -> str:
        """The broker's id of the topic now.

        Raises: ServiceUnavailableError where the broker does not answer or has no such topic.
        """
        try:
            described = self._admin.describe_topics(
                TopicCollection([self._topic]), request_timeout=self._timeout
            )
            return str(described[self._topic].result(self._timeout).topic_id)
        except (KafkaException, TimeoutError) as error:
            raise ServiceUnavailableError(
                f"Kafka at {self._servers} does not say which {self._topic} it has"
                f" ({error}); run: mastodon-assets up (or look at KAFKA_BOOTSTRAP_SERVERS)"
            ) from error


def _offsets(
    admin: AdminClient, topic: str, partitions: list[int], spec: OffsetSpec, timeout: float
) -> dict[int, int]:
    wanted = {TopicPartition(topic, partition): spec for partition in partitions}
    for attempt in Retrying(
        retry=retry_if_exception(_is_without_leader),
        stop=stop_after_delay(timeout),
        wait=wait_fixed(_RETRY_SECONDS),
        reraise=True,
    ):
        with attempt:
            futures = admin.list_offsets(wanted, request_timeout=timeout).items()
            offsets = {place.partition: future.result(timeout).offset for place, future in futures}
    return offsets


def _is_without_leader(error: BaseException) -> bool:
    """As a partition is for a moment after its topic was made, or its broker was started."""
    return isinstance(error, KafkaException) and error.args[0].code() in (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    )
