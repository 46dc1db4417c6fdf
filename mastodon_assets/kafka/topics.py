"""Topics of Kafka: creating them, and their id and offsets as the broker reports them.

What belongs here: requests to Kafka with a time limit. What follows from the answers is in
`stream.ledger`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from mastodon_assets.config.kafka_access import KafkaAccess
from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.kafka.client import Refusals, client_config, config_of

# Partition to offset.
Offsets = Mapping[int, int]

# Dead letters hold posts that are too large for the stream's topic. The ingester reads up to
# 16 MiB, and JSON in JSON needs more.
MAX_ERROR_BYTES = 40 * 1024 * 1024
_CREATE_SECONDS = 30
_DELETE_SECONDS = 10
_RETRY_SECONDS = 0.2


class TopicMissingError(PlatformError):
    """Raised if a topic does not exist on this broker."""


@dataclass(frozen=True)
class TopicState:
    """A topic as the broker reports it.

    Attributes:
        topic: The name.
        topic_id: The id; a topic that was deleted and created again has another one.
        earliest: First offset per partition.
        end: The offset that the next record gets, per partition.
    """

    topic: str
    topic_id: str
    earliest: Offsets
    end: Offsets


def create_topics(
    access: KafkaAccess,
    names: Sequence[str],
    partitions: int = 4,
    *,
    errors_topic: str | None = None,
) -> None:
    """Create the topics that do not exist, with the broker's default number of replicas.

    They can be used when it returns. Existing topics stay unchanged, except that the errors topic
    accepts messages of `MAX_ERROR_BYTES`.

    Args:
        access: The broker.
        names: The topics.
        partitions: Number of partitions of a new topic.
        errors_topic: Which of `names` is the topic of dead letters.

    Raises:
        ServiceUnavailableError: The broker does not answer or refuses.
        SettingsError: The CA's file cannot be read.
    """
    topics = [NewTopic(name, num_partitions=partitions) for name in names]
    if not topics:
        return
    admin = AdminClient(config_of(access))
    for name, created in admin.create_topics(topics, request_timeout=30).items():
        try:
            created.result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ServiceUnavailableError(
                    f"Kafka at {access.servers} did not create topic {name}: {reason.str()}"
                ) from error
    if errors_topic is not None:
        _accept_large_messages(admin, access.servers, errors_topic)
    _wait_until_known(admin, access.servers, names)


def read_topic(settings: Settings, topic: str, *, timeout: float = 5) -> TopicState:
    """Read the state of a topic from the broker.

    Args:
        settings: They name the broker.
        topic: The name.
        timeout: Seconds per request.

    Raises:
        ServiceUnavailableError: The broker does not answer or refuses access.
        TopicMissingError: The topic does not exist.
    """
    servers, refusals = settings.kafka_servers, Refusals()
    admin = AdminClient(client_config(settings, refusals))
    try:
        # Metadata first: it fails after `timeout` if nothing listens; the others wait longer.
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
            earliest=list_offsets(admin, topic, partitions, OffsetSpec.earliest(), timeout),
            end=list_offsets(admin, topic, partitions, OffsetSpec.latest(), timeout),
        )
    except (KafkaException, TimeoutError) as error:
        admin.poll(0)
        raise refusals.unavailable(servers) from error


def delete_records(
    settings: Settings, topic: str, before: Offsets, *, timeout: float = _DELETE_SECONDS
) -> None:
    """Delete the records of a topic before an offset, per partition.

    No client can read them any more; the broker frees its disk when it closes the segment.

    Raises:
        ServiceUnavailableError: The broker does not answer, or does not confirm.
    """
    servers, refusals = settings.kafka_servers, Refusals()
    admin = AdminClient(client_config(settings, refusals))
    places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    if not places:
        return
    try:
        for future in admin.delete_records(places, request_timeout=timeout).values():
            future.result(2 * timeout)
    except TimeoutError as error:
        raise ServiceUnavailableError(
            f"Kafka at {servers} did not confirm that it deleted records of topic {topic}; try"
            " again, see: mastodon-assets status"
        ) from error
    except KafkaException as error:
        admin.poll(0)
        raise refusals.unavailable(servers) from error


class TopicIdentity:
    """Reads a topic's id repeatedly over one connection."""

    def __init__(self, settings: Settings, topic: str, *, timeout: float = 5) -> None:
        self.admin_client = AdminClient(client_config(settings))
        self._servers = settings.kafka_servers
        self._topic = topic
        self._timeout = timeout

    def ask(self) -> str:
        """Return the topic's present id.

        Raises:
            ServiceUnavailableError: The broker does not answer, or the topic does not exist.
        """
        try:
            described = self.admin_client.describe_topics(
                TopicCollection([self._topic]), request_timeout=self._timeout
            )
            return str(described[self._topic].result(self._timeout).topic_id)
        except (KafkaException, TimeoutError) as error:
            raise ServiceUnavailableError(
                f"Kafka at {self._servers} does not return the id of topic {self._topic}"
                f" ({error}); run: mastodon-assets up (or check KAFKA_BOOTSTRAP_SERVERS)"
            ) from error


def list_offsets(
    admin: AdminClient, topic: str, partitions: list[int], spec: OffsetSpec, timeout: float
) -> dict[int, int]:
    """Return the offset that `spec` asks for, per partition; wait for a leader if there is none."""
    requested = {TopicPartition(topic, partition): spec for partition in partitions}
    for attempt in Retrying(
        retry=retry_if_exception(_is_without_leader),
        stop=stop_after_delay(timeout),
        wait=wait_fixed(_RETRY_SECONDS),
        reraise=True,
    ):
        with attempt:
            # The end of what is committed: nothing after it is read.
            futures = admin.list_offsets(
                requested,
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=timeout,
            ).items()
            offsets = {place.partition: future.result(timeout).offset for place, future in futures}
    return offsets


def _is_without_leader(error: BaseException) -> bool:
    """Return whether a partition has no leader, as for a moment after its creation."""
    return isinstance(error, KafkaException) and error.args[0].code() in (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    )


def _accept_large_messages(admin: AdminClient, bootstrap_servers: str, topic: str) -> None:
    limit = ConfigEntry(
        "max.message.bytes",
        str(MAX_ERROR_BYTES),
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[limit])
    try:
        for changed in admin.incremental_alter_configs([resource]).values():
            changed.result(_CREATE_SECONDS)
    except (KafkaException, TimeoutError) as error:
        raise ServiceUnavailableError(
            f"Kafka at {bootstrap_servers} did not change max.message.bytes of topic {topic}:"
            f" {error}"
        ) from error


def _wait_until_known(admin: AdminClient, bootstrap_servers: str, names: Sequence[str]) -> None:
    # The controller creates a topic; the broker knows it a moment later.
    deadline = time.monotonic() + _CREATE_SECONDS
    while True:
        try:
            known = admin.list_topics(timeout=_CREATE_SECONDS).topics
        except KafkaException as error:
            raise ServiceUnavailableError(
                f"Kafka at {bootstrap_servers} created the topics and stopped answering"
                f" ({error.args[0].str()})"
            ) from error
        if all(name in known and _has_leaders(known[name]) for name in names):
            return
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(
                f"Kafka at {bootstrap_servers} created topics and does not list them yet; try again"
            )
        time.sleep(0.1)


def _has_leaders(topic: TopicMetadata) -> bool:
    return bool(topic.partitions) and all(
        partition.leader >= 0 for partition in topic.partitions.values()
    )
