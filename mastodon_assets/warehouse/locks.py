"""PostgreSQL's advisory locks: their numbers, all in one place, and the write lock.

A lock of one number and a lock of two numbers never meet, even if the first numbers agree.
"""

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


def take_write_lock(connection: psycopg.Connection[Any]) -> None:
    """Wait for the write lock and hold it until the transaction ends.

    Every transaction that writes `toots_raw` or anything derived from it takes this lock first. A
    migration takes it too, so the schema's version stays the same until the transaction ends.

    Raises:
        SchemaVersionError: The schema has another version than this program writes.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITE_LOCK,))
    check_schema_version(connection)
