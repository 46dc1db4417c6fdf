"""The stream lock: marks the process that reads a topic continuously, so that others wait for it.

What belongs here: avoiding useless work only. The ledger's compare-and-set ensures that no message
is written twice, whether or not this lock is held.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zlib import crc32

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.kafka.topics import Offsets, TopicState
from mastodon_assets.stream.ledger import lag, read_ledger
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import STREAM_LOCK

# A stream that is behind moves the ledger every few seconds. Its restart after an outage takes at
# most a minute, and it releases the lock meanwhile.
STALL_SECONDS = 120
_POLL_SECONDS = 1


class StreamStalledError(PlatformError):
    """A stream process holds the lock but does not move the ledger."""


@dataclass(frozen=True)
class LockOwner:
    """The stream process as PostgreSQL knows it.

    Attributes:
        pid: Process id of its backend in PostgreSQL.
        client: Its address and port.
        since: When it connected.
    """

    pid: int
    client: str
    since: datetime

    def __str__(self) -> str:
        return (
            f"the stream process at {self.client} (PostgreSQL pid {self.pid},"
            f" since {self.since:%Y-%m-%d %H:%M:%S} UTC)"
        )


@dataclass(frozen=True)
class Waited:
    """The ledger when the wait began, and the stream process waited for, if there was one."""

    start: Offsets
    owner: LockOwner | None


def take_stream_lock(connection: Connection[Any], topic: str) -> bool:
    """Mark this connection as the topic's stream until it closes; False if another one is."""
    row = connection.execute(
        "SELECT pg_try_advisory_lock(%s, %s)", (STREAM_LOCK, _topic_key(topic))
    ).fetchone()
    assert row is not None
    return bool(row[0])


def stream_lock_owner(connection: Connection[Any], topic: str) -> LockOwner | None:
    """Return the process that holds the lock of the topic now."""
    row = connection.execute(
        """
        SELECT l.pid, coalesce(host(a.client_addr) || ':' || a.client_port, 'this machine'),
               coalesce(a.backend_start, now())
          FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (l.classid, l.objid) = (%s::oid, %s::oid)
        """,
        (STREAM_LOCK, _topic_key(topic)),
    ).fetchone()
    return None if row is None else LockOwner(*row)


def wait_for_stream(
    postgres_url: SecretStr,
    target: TopicState,
    report: Callable[[str], None],
    *,
    stall_seconds: float = STALL_SECONDS,
) -> Waited:
    """Wait while a stream process brings the tables to the end offsets of `target`.

    Returns as soon as no stream process is at work, or the ledger has passed these offsets.

    Raises:
        StreamStalledError: The ledger has not moved for `stall_seconds`.
    """
    with transaction(postgres_url) as connection:
        connection.autocommit = True
        start = ledger = read_ledger(connection, target.topic)
        moved_at = time.monotonic()
        waited_for: LockOwner | None = None
        while behind := lag(ledger, target.end):
            owner = stream_lock_owner(connection, target.topic)
            if owner is None:
                break
            if waited_for is None:
                report(f"{owner} is reading the {behind:,} messages; waiting for it")
            waited_for = owner
            if time.monotonic() - moved_at > stall_seconds:
                raise StreamStalledError(
                    f"{owner} has not moved the ledger for {stall_seconds:.0f} s and is"
                    f" {behind:,} messages behind; stop that process, then run this again"
                )
            time.sleep(_POLL_SECONDS)
            found = read_ledger(connection, target.topic)
            if found != ledger:
                ledger, moved_at = found, time.monotonic()
        return Waited(start, waited_for)


def _topic_key(topic: str) -> int:
    # Positive, because PostgreSQL shows it as an unsigned number.
    return crc32(topic.encode()) & 0x7FFFFFFF
