"""What the broker says of a topic: its id, and each partition's first and end offset.

What belongs here: bounded questions to Kafka. What follows from the answers stands in `ledger`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec, TopicMetadata
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.kafka.client import Refusals, client_config

_KNOWN_SECONDS = 30

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
        self.admin_client = AdminClient(client_config(settings))
        self._servers = settings.kafka_servers
        self._topic = topic
        self._timeout = timeout

    def ask(self) -> str:
        """The broker's id of the topic now.

        Raises: ServiceUnavailableError where the broker does not answer or has no such topic.
        """
        try:
            described = self.admin_client.describe_topics(
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


def create_topics(
    bootstrap_servers: str,
    names: Sequence[str],
    partitions: int = 4,
    *,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Create the topics that are absent, with as many replicas as the broker gives by default.

    They can be used when it returns. Those that are there stay as they are. `config` is
    `kafka_client.client_config` for a broker that wants more than an address.
    Raises: ServiceUnavailableError where the broker does not answer or refuses.
    """
    topics = [NewTopic(name, num_partitions=partitions) for name in names]
    if not topics:
        return
    admin = AdminClient(dict(config)) if config else admin_client(bootstrap_servers)
    for name, created in admin.create_topics(topics, request_timeout=30).items():
        try:
            created.result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ServiceUnavailableError(
                    f"Kafka at {bootstrap_servers} does not create topic {name}: {reason.str()}"
                ) from error
    _wait_until_known(admin, bootstrap_servers, names)


def _wait_until_known(admin: AdminClient, bootstrap_servers: str, names: Sequence[str]) -> None:
    # A topic is made when the controller says so, and known to the broker a moment later.
    deadline = time.monotonic() + _KNOWN_SECONDS
    while True:
        try:
            known = admin.list_topics(timeout=_KNOWN_SECONDS).topics
        except KafkaException as error:
            raise ServiceUnavailableError(
                f"Kafka at {bootstrap_servers} made topics and does not answer any more"
                f" ({error.args[0].str()})"
            ) from error
        if all(name in known and _has_leaders(known[name]) for name in names):
            return
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(
                f"Kafka at {bootstrap_servers} made topics and does not know them yet; try again"
            )
        time.sleep(0.1)


def _has_leaders(topic: TopicMetadata) -> bool:
    return bool(topic.partitions) and all(
        partition.leader >= 0 for partition in topic.partitions.values()
    )


def admin_client(bootstrap_servers: str) -> AdminClient:
    """Return a client for administration that is silent about brokers that go away."""
    # log_level 0: a broker that goes away would else be told on the terminal, in many lines.
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
