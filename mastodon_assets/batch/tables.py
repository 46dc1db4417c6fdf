"""The six batch tables: the sums they show, computed from all posts by Spark.

What belongs here: what a table contains. How it is refreshed is in `refresh`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.warehouse.post_sums import POST_SUMS, PostSums
from mastodon_assets.warehouse.tables import (
    BATCH_ACTIVE_USERS,
    BATCH_AVG_LEN_PER_DAY,
    BATCH_HASHTAG_BY_HOUR,
    BATCH_TOOTS_BY_LANG_PER_DAY,
    BATCH_TOOTS_PER_DAY,
    BATCH_TOP_HASHTAG,
    DAY_TOTALS,
    HASHTAG_TOTALS,
    USER_TOTALS,
    Table,
)

# One partition of the table's blocks, read by its own session.
_READ_TOOTS = """
SELECT event_at, lang, username, hashtags, char_length(content_txt) AS length
  FROM masto.toots_raw WHERE {blocks} AND {counted}
"""
_MIN_BLOCKS_PER_PARTITION = 8192
_MAX_PARTITIONS = 64
# Each core holds that many posts with their hashtags in memory.
_ROWS_PER_FETCH = 1_000
_EXPORT_SNAPSHOT = """
SELECT pg_export_snapshot(),
       pg_relation_size('masto.toots_raw') / current_setting('block_size')::bigint
"""
_USE_SNAPSHOT = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT '{}'"
)

_TLS_PARAMETERS = ("sslmode", "sslrootcert", "sslcert", "sslkey")


@dataclass(frozen=True)
class BatchTable:
    """A batch table, the sums that it shows, and how Spark computes these from all posts."""

    table: Table
    sums: PostSums
    of_all: Callable[[DataFrame], DataFrame]


def user_totals(toots: DataFrame) -> DataFrame:
    """Sum per user. Columns: username, toots_count, total_length."""
    return toots.groupBy("username").agg(_toots_count(), _total_length())


def hashtag_by_hour(toots: DataFrame) -> DataFrame:
    """Count per hour and hashtag. Columns: hour, hashtag, toots_count."""
    by_hour = toots.select(F.date_trunc("hour", "event_at").alias("hour"), _each_hashtag())
    return by_hour.groupBy("hour", "hashtag").agg(_toots_count())


def hashtag_totals(toots: DataFrame) -> DataFrame:
    """Count per hashtag. Columns: hashtag, toots_count."""
    return toots.select(_each_hashtag()).groupBy("hashtag").agg(_toots_count())


def toots_per_day(toots: DataFrame) -> DataFrame:
    """Count per day. Columns: day, toots_count."""
    return toots.groupBy(_day()).agg(_toots_count())


def day_totals(toots: DataFrame) -> DataFrame:
    """Sum per day. Columns: day, toots_count, total_length."""
    return toots.groupBy(_day()).agg(_toots_count(), _total_length())


def toots_by_lang_per_day(toots: DataFrame) -> DataFrame:
    """Count per day and language. Columns: day, lang, toots_count."""
    return toots.groupBy(_day(), "lang").agg(_toots_count())


_SUMS = {sums.table: sums for sums in POST_SUMS}
BATCH_TABLES: Mapping[str, BatchTable] = {
    table.name: BatchTable(table, _SUMS[sums], of_all)
    for table, sums, of_all in (
        (BATCH_ACTIVE_USERS, USER_TOTALS, user_totals),
        (BATCH_HASHTAG_BY_HOUR, BATCH_HASHTAG_BY_HOUR, hashtag_by_hour),
        (BATCH_TOP_HASHTAG, HASHTAG_TOTALS, hashtag_totals),
        (BATCH_TOOTS_PER_DAY, BATCH_TOOTS_PER_DAY, toots_per_day),
        (BATCH_AVG_LEN_PER_DAY, DAY_TOTALS, day_totals),
        (BATCH_TOOTS_BY_LANG_PER_DAY, BATCH_TOOTS_BY_LANG_PER_DAY, toots_by_lang_per_day),
    )
}


def read_toots(
    spark: SparkSession,
    postgres_url: SecretStr,
    connection: Connection[Any],
    counted: str = "true",
) -> DataFrame:
    """Read all posts in parallel partitions, all in the snapshot of `connection`.

    The transaction of `connection` must stay open until the frame was used.

    Args:
        spark: The session.
        postgres_url: DATABASE_URL.
        connection: A transaction.
        counted: SQL condition of the posts.

    Returns:
        Columns: event_at, lang, username, hashtags, length (characters).
    """
    row = connection.execute(_EXPORT_SNAPSHOT).fetchone()
    assert row is not None
    snapshot, blocks = row
    reader = (
        spark.read.format("jdbc")
        .options(**jdbc_options(postgres_url))
        .option("sessionInitStatement", _USE_SNAPSHOT.format(snapshot))
        # A fetch size also makes the driver open the one transaction that the snapshot is set in.
        .option("fetchsize", _ROWS_PER_FETCH)
    )
    parts = (
        reader.option("query", _READ_TOOTS.format(blocks=part, counted=counted)).load()
        for part in block_ranges(blocks)
    )
    return reduce(DataFrame.union, parts)


def block_ranges(blocks: int) -> list[str]:
    """Return conditions that together cover all blocks of the table; the last is open."""
    size = max(_MIN_BLOCKS_PER_PARTITION, -(-blocks // _MAX_PARTITIONS))
    starts = range(0, max(blocks, 1), size)
    return [
        f"ctid >= '({start},0)'::tid"
        + (f" AND ctid < '({start + size},0)'::tid" if start != starts[-1] else "")
        for start in starts
    ]


def jdbc_options(postgres_url: SecretStr) -> dict[str, str]:
    """Return the options of Spark's JDBC source; the password is never part of the url.

    The url's TLS parameters are passed on: both drivers use the same names.
    """
    parts = conninfo_to_dict(postgres_url.get_secret_value())
    host = str(parts.get("host", "localhost"))
    address = f"[{host}]" if ":" in host else host
    url = f"jdbc:postgresql://{address}:{parts.get('port', 5432)}/{parts['dbname']}"
    tls = {name: str(parts[name]) for name in _TLS_PARAMETERS if name in parts}
    return {
        "driver": "org.postgresql.Driver",
        "url": url,
        "user": str(parts["user"]),
        "password": str(parts.get("password", "")),
        **tls,
    }


def _toots_count() -> Column:
    return F.count("*").alias("toots_count")


def _total_length() -> Column:
    return F.sum("length").cast("long").alias("total_length")


def _day() -> Column:
    return F.to_date("event_at").alias("day")


def _each_hashtag() -> Column:
    return F.explode("hashtags").alias("hashtag")
