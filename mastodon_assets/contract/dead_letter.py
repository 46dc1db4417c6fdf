"""A dead letter: what was refused, where it is and why; the same for tables and topic."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mastodon_assets.errors import PlatformError


class NoDeadLetterError(PlatformError):
    """There is no dead letter at the place asked for."""


@dataclass(frozen=True)
class DeadLetter:
    """What was refused, and where it stands. `payload` is what was refused, byte for byte.

    `at` is when it was refused, None where an entry of the errors topic does not say.
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
    """What a replay did: `published` went to the topic, `kept` by reason why not."""

    published: int = 0
    kept: Counter[str] = field(default_factory=Counter)


def newest_first(dead_letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """By the time of refusal; those that do not say one come last."""
    unknown = datetime.min.replace(tzinfo=UTC)
    return sorted(dead_letters, key=lambda dead_letter: dead_letter.at or unknown, reverse=True)
