"""Deletion of old records from a topic.

What belongs here: requests to the broker. How long records are kept is decided by `orchestration`.
"""

from datetime import datetime

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec

from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.client import Refusals, client_config
from mastodon_assets.kafka.topics import Offsets, delete_records, list_offsets, read_topic


def delete_old_records(
    settings: Settings,
    topic: str,
    *,
    older_than: datetime,
    read_up_to: Offsets | None = None,
    timeout: float = 5,
) -> int:
    """Delete the records of `topic` that are too old; the broker frees their disk space later.

    Args:
        settings: They name the broker.
        topic: The topic.
        older_than: Younger records stay.
        read_up_to: Records from these offsets on stay, because nobody has read them yet; None if
            nobody has to.
        timeout: Seconds per request.

    Returns:
        The number of offsets that the topic no longer holds.

    Raises:
        ServiceUnavailableError: The broker does not answer or refuses.
        TopicMissingError: The topic does not exist.
    """
    state = read_topic(settings, topic, timeout=timeout)
    refusals = Refusals()
    admin = AdminClient(client_config(settings, refusals))
    spec = OffsetSpec.for_timestamp(int(older_than.timestamp() * 1000))
    try:
        young = list_offsets(admin, topic, sorted(state.end), spec, timeout)
    except (KafkaException, TimeoutError) as error:
        admin.poll(0)
        raise refusals.unavailable(settings.kafka_servers) from error
    before = {}
    for partition, end in state.end.items():
        # -1: no record is that young.
        first_young = young[partition] if young[partition] >= 0 else end
        read = end if read_up_to is None else read_up_to.get(partition, 0)
        if (offset := min(first_young, read)) > state.earliest[partition]:
            before[partition] = offset
    delete_records(settings, topic, before, timeout=timeout)
    return sum(offset - state.earliest[partition] for partition, offset in before.items())
