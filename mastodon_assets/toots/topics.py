"""What the broker says of a topic: its id, and each partition's first and end offset.

What belongs here: bounded questions to Kafka. What follows from the answers stands in `ledger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from mastodon_assets.errors import PlatformError, ServiceUnavailableError

Offsets = Mapping[int, int]


class TopicMissingError(PlatformError):
    """The topic does not exist on this broker."""


@dataclass(frozen=True)
class TopicState:
    """`earliest` and `end` map partition to offset; `end` is the offset the next record gets."""

    topic: str
    topic_id: str
    earliest: Offsets
    end: Offsets


def read_topic(servers: str, topic: str, *, timeout: float = 5) -> TopicState:
    """Ask the broker, within `timeout` seconds a question.

    Raises: ServiceUnavailableError where it does not answer, TopicMissingError.
    """
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
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
        raise ServiceUnavailableError(
            f"Kafka at {servers} does not answer; run: mastodon-assets up"
            " (or look at KAFKA_BOOTSTRAP_SERVERS)"
        ) from error


def _offsets(
    admin: AdminClient, topic: str, partitions: list[int], spec: OffsetSpec, timeout: float
) -> dict[int, int]:
    wanted = {TopicPartition(topic, partition): spec for partition in partitions}
    futures = admin.list_offsets(wanted, request_timeout=timeout)
    return {place.partition: future.result(timeout).offset for place, future in futures.items()}
