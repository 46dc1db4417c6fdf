"""The six batch tables: their contents, by Spark from all posts or from the change log.

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
  FROM masto.toots_raw WHERE {blocks}
"""
_MIN_BLOCKS_PER_PARTITION = 8192
_MAX_PARTITIONS = 64
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
    """A batch table and the sums it is computed from.

    Attributes:
        table: The batch table.
        sums: The table of its sums, which may be the batch table itself.
        of_all: Computes the sums of all posts, by Spark.
        of_changes: SELECT of the sums of a change log `changes`.
        rows: SELECT of the table's rows from the sums; None if `sums` is the table itself.
        has_key_of_sums: Whether a row depends only on the sums of its own key.
    """

    table: Table
    sums: Table
    of_all: Callable[[DataFrame], DataFrame]
    of_changes: str
    rows: str | None = None
    has_key_of_sums: bool = True


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


# Sums and counts are integers, so a quotient does not depend on the order of rows.
BATCH_TABLES: Mapping[str, BatchTable] = {
    batch.table.name: batch
    for batch in (
        BatchTable(
            table=BATCH_ACTIVE_USERS,
            sums=USER_TOTALS,
            of_all=user_totals,
            of_changes="SELECT username, sum(sign)::bigint AS toots_count,"
            " sum(sign * length)::bigint AS total_length FROM changes GROUP BY 1",
            rows="SELECT username, toots_count,"
            " total_length::double precision / toots_count AS avg_len"
            " FROM masto.user_totals WHERE toots_count >= %(min_toots)s",
        ),
        BatchTable(
            table=BATCH_HASHTAG_BY_HOUR,
            sums=BATCH_HASHTAG_BY_HOUR,
            of_all=hashtag_by_hour,
            of_changes="SELECT date_trunc('hour', event_at, 'UTC') AS hour, hashtag,"
            " sum(sign)::bigint AS toots_count"
            " FROM changes, unnest(hashtags) AS hashtag GROUP BY 1, 2",
        ),
        BatchTable(
            table=BATCH_TOP_HASHTAG,
            sums=HASHTAG_TOTALS,
            of_all=hashtag_totals,
            of_changes="SELECT hashtag, sum(sign)::bigint AS toots_count"
            " FROM changes, unnest(hashtags) AS hashtag GROUP BY 1",
            rows="SELECT hashtag, toots_count, 1 AS rank FROM masto.hashtag_totals"
            " WHERE toots_count = (SELECT max(toots_count) FROM masto.hashtag_totals)",
            has_key_of_sums=False,
        ),
        BatchTable(
            table=BATCH_TOOTS_PER_DAY,
            sums=BATCH_TOOTS_PER_DAY,
            of_all=toots_per_day,
            of_changes="SELECT (event_at AT TIME ZONE 'UTC')::date AS day,"
            " sum(sign)::bigint AS toots_count FROM changes GROUP BY 1",
        ),
        BatchTable(
            table=BATCH_AVG_LEN_PER_DAY,
            sums=DAY_TOTALS,
            of_all=day_totals,
            of_changes="SELECT (event_at AT TIME ZONE 'UTC')::date AS day,"
            " sum(sign)::bigint AS toots_count,"
            " sum(sign * length)::bigint AS total_length FROM changes GROUP BY 1",
            rows="SELECT day, total_length::double precision / toots_count AS avg_len"
            " FROM masto.day_totals",
        ),
        BatchTable(
            table=BATCH_TOOTS_BY_LANG_PER_DAY,
            sums=BATCH_TOOTS_BY_LANG_PER_DAY,
            of_all=toots_by_lang_per_day,
            of_changes="SELECT (event_at AT TIME ZONE 'UTC')::date AS day,"
            " lang, sum(sign)::bigint AS toots_count FROM changes GROUP BY 1, 2",
        ),
    )
}


def read_toots(
    spark: SparkSession, postgres_url: SecretStr, connection: Connection[Any]
) -> DataFrame:
    """Read all posts in parallel partitions, all in the snapshot of `connection`.

    The transaction of `connection` must stay open until the frame was used.

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
        .option("fetchsize", 10_000)
    )
    parts = (
        reader.option("query", _READ_TOOTS.format(blocks=part)).load()
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
