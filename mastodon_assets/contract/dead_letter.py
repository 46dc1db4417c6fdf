"""Dead letters: the refused messages, in the same form for the table and the Kafka topic.

What belongs here: what a dead letter is. How it is read and replayed is in `stream.dead_letters`
(the table `toots_rejected`) and `ingest.dead_letters` (the topic `mastodon_errors`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mastodon_assets.errors import PlatformError


class NoDeadLetterError(PlatformError):
    """Raised if there is no dead letter at the requested topic, partition and offset."""


@dataclass(frozen=True)
class DeadLetter:
    """A refused message, the Kafka position it has, and why it was refused.

    Attributes:
        topic: The topic of the record.
        partition: The partition of the record.
        offset: The offset of the record.
        reason: Why the message was refused.
        payload: The refused bytes, unchanged; None if they may not be kept.
        at: When it was refused; None if an entry of the errors topic does not say.
        key: The record's key.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    payload: bytes | None
    at: datetime | None
    key: bytes | None = None


@dataclass
class ReplaySummary:
    """The result of a replay.

    Attributes:
        published: Number of messages that were published to the topic.
        kept: Number of dead letters that stay, by the reason.
    """

    published: int = 0
    kept: Counter[str] = field(default_factory=Counter)


def newest_first(dead_letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Sort by the time of refusal, the newest first; those without a time come last."""
    unknown = datetime.min.replace(tzinfo=UTC)
    return sorted(dead_letters, key=lambda dead_letter: dead_letter.at or unknown, reverse=True)
