"""PostgreSQL's advisory locks: their numbers, all in one place, and writing under the write lock.

A lock of one number and a lock of two numbers never meet, even if the first numbers agree.
"""

import time
from collections.abc import Callable
from typing import Any

import psycopg

from mastodon_assets.warehouse.schema_version import check_schema_version

MIGRATION_LOCK = 4_611_001
WRITE_LOCK = 4_611_002
# One number: transactions that change the champion follow each other.
MODELS_LOCK = 4_611_003
# Two numbers, the second is the topic's: one stream process per topic.
STREAM_LOCK = 4_611_003
TRAINING_LOCK = 4_611_009
# One correction of sums at a time: two would each add the same difference.
REBUILD_LOCK = 4_611_010
# One process at a time decides about incidents and sends messages.
ALERTS_LOCK = 4_611_011
# One refresh of the hourly tables at a time: an older snapshot would overwrite a newer one.
HOURLY_LOCK = 4_611_019

# The stream waits for the write lock: long work holds it half a second at a time, at most.
_SECONDS_PER_CHUNK = 0.2
_FIRST_CHUNK, _LEAST_CHUNK, _LARGEST_CHUNK = 500, 50, 20_000


def take_write_lock(connection: psycopg.Connection[Any]) -> None:
    """Wait for the write lock and hold it until the transaction ends.

    Every transaction that writes `toots_raw` or anything derived from it takes this lock first. A
    migration takes it too, so the schema's version stays the same until the transaction ends.

    Raises:
        SchemaVersionError: The schema has another version than this program writes.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITE_LOCK,))
    check_schema_version(connection)


def write_in_chunks(
    connection: psycopg.Connection[Any],
    write: Callable[[int], int],
    *,
    until: float | None = None,
) -> bool:
    """Write in transactions that each hold the write lock a fraction of a second.

    Others get the lock in between, in the order in which they asked for it. What was written stays
    if a later chunk fails.

    Args:
        connection: A connection without a transaction.
        write: Writes at most the given number of items and returns how many it wrote; fewer end
            the work.
        until: Time of `time.monotonic()` after which no other chunk begins.

    Returns:
        Whether all is written.
    """
    most = _FIRST_CHUNK
    while until is None or time.monotonic() < until:
        with connection.transaction():
            take_write_lock(connection)
            began_at = time.monotonic()
            written = write(most)
        if written < most:
            return True
        most = next_chunk(most, time.monotonic() - began_at)
    return False


def write_ranges(
    connection: psycopg.Connection[Any],
    count: int,
    write: Callable[[int, int], None],
    *,
    until: float | None = None,
) -> bool:
    """Write `count` numbered items by `write_in_chunks`; return whether all are written.

    Args:
        connection: A connection without a transaction.
        count: The number of items; without any, the lock is not taken.
        write: Writes the items from the first number to before the second.
        until: See `write_in_chunks`.
    """
    first = 0

    def write_chunk(most: int) -> int:
        nonlocal first
        begin, first = first, min(first + most, count)
        if first > begin:
            write(begin, first)
        return first - begin

    return not count or write_in_chunks(connection, write_chunk, until=until)


def next_chunk(items: int, seconds: float) -> int:
    """Return how many items to write next, if `items` took `seconds`."""
    factor = min(2.0, max(0.25, _SECONDS_PER_CHUNK / max(seconds, 0.001)))
    return min(_LARGEST_CHUNK, max(_LEAST_CHUNK, int(items * factor)))
