"""Refreshing a batch table, and recomputing its sums from all posts.

What belongs here: the two operations. What a table contains is in `tables`; its sums change in each
transaction that changes posts, see `warehouse.post_sums`.
"""

from collections.abc import Callable
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
    from pyspark.sql import SparkSession


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

    def of_all(connection: Connection[Any]) -> "pa.Table":
        counted = with_horizons(batch.sums.counted).as_string()
        toots = read_toots(spark, postgres_url, connection, counted)
        return batch.of_all(toots).toArrow()

    with transaction(postgres_url) as connection:
        return correct_sums(connection, batch.sums.sum_table, of_all)
