"""Refreshing a batch table, and recomputing its sums from all posts.

What belongs here: the two operations. What a table contains is in `tables`; its sums change in each
transaction that changes posts, see `warehouse.post_sums`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.batch.tables import BATCH_TABLES, read_toots
from mastodon_assets.spark.jvm_end import jvm_end_explained
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.horizons import with_horizons
from mastodon_assets.warehouse.sum_tables import correct_sums
from mastodon_assets.warehouse.tables import BATCH_ACTIVE_USERS
from mastodon_assets.warehouse.watermarks import set_watermark, toots_version

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

# Of a key as long as the contract allows, some 200 MB in all.
_ROWS_PER_SLICE = 500_000


@dataclass(frozen=True)
class Refreshed:
    """The sums corrected, and whether all posts were read for it."""

    rows_changed: int
    is_from_all: bool


@jvm_end_explained()
def refresh_batch_table(
    session: "Callable[[], SparkSession]",
    postgres_url: SecretStr,
    name: str,
    *,
    min_toots: int,
    rebuild: bool = False,
) -> Refreshed:
    """Record that the table `name` shows all stored posts, and rebuild its sums if asked to.

    Args:
        session: Called if Spark is needed.
        postgres_url: DATABASE_URL.
        name: A key of `BATCH_TABLES`.
        min_toots: ACTIVITY_MIN_TOOTS; the view of active users reads it from the watermark.
        rebuild: Compute the sums from all posts, by Spark, and correct the stored ones.

    Raises:
        SparkEndedError: Spark's JVM ended, for lack of memory for instance.
        ServiceUnavailableError: PostgreSQL or Spark does not answer.
        MissingTablesError: The database is not migrated.
    """
    corrected = _rebuild(session(), postgres_url, name) if rebuild else 0
    with transaction(postgres_url) as connection:
        set_watermark(
            connection,
            name,
            toots_version=toots_version(connection),
            parameters=str(min_toots) if name == BATCH_ACTIVE_USERS.name else None,
        )
    return Refreshed(corrected, is_from_all=rebuild)


def _rebuild(spark: "SparkSession", postgres_url: SecretStr, name: str) -> int:
    batch = BATCH_TABLES[name]

    def of_all(connection: Connection[Any]) -> "Iterator[pa.Table]":
        counted = with_horizons(batch.sums.counted).as_string()
        toots = read_toots(spark, postgres_url, connection, counted)
        yield from _slices(batch.of_all(toots), batch.sums.table.key)

    with transaction(postgres_url) as connection:
        return correct_sums(connection, batch.sums.sum_table, of_all)


def _slices(sums: "DataFrame", key: Sequence[str]) -> "Iterator[pa.Table]":
    """Yield the rows in tables that the driver has memory for: what Spark collects is in its heap.

    They are computed once, and wait on the disk of the executors.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    computed = sums.persist(StorageLevel.DISK_ONLY)
    try:
        number = -(-computed.count() // _ROWS_PER_SLICE)
        slice_of_row = F.pmod(F.xxhash64(*key), F.lit(max(number, 1)))
        for each in range(number):
            yield computed.where(slice_of_row == each).toArrow()
    finally:
        computed.unpersist()
