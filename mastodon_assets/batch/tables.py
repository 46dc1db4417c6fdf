"""The six batch tables: what each one says about all toots.

What belongs here: what a table is made of, by Spark from all toots or by what changed. How it is
brought up to date stands in `refresh`.
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

# A part of the table's blocks; a session of its own reads it.
_READ_TOOTS = """
SELECT event_at, lang, username, hashtags, char_length(content_txt) AS length
  FROM masto.toots_raw WHERE {blocks}
"""
_BLOCKS_A_PART = 8192
_MOST_PARTS = 64
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
    """A batch table, made from sums that move by what changed.

    `sums` holds them, and is the table itself where that is all it says; else `rows` is the SELECT
    that makes its rows from the sums. `of_all` is the sums of all toots, by Spark; `of_changes`
    the sums of a journal `changes`, as SQL. `is_keyed_alike` says that a row of the table depends
    on the sums of its own key alone.
    """

    table: Table
    sums: Table
    of_all: Callable[[DataFrame], DataFrame]
    of_changes: str
    rows: str | None = None
    is_keyed_alike: bool = True


def user_totals(toots: DataFrame) -> DataFrame:
    """username, toots_count, total_length."""
    return toots.groupBy("username").agg(_toots_count(), _total_length())


def hashtag_by_hour(toots: DataFrame) -> DataFrame:
    """hour, hashtag, toots_count."""
    by_hour = toots.select(F.date_trunc("hour", "event_at").alias("hour"), _each_hashtag())
    return by_hour.groupBy("hour", "hashtag").agg(_toots_count())


def hashtag_totals(toots: DataFrame) -> DataFrame:
    """hashtag, toots_count."""
    return toots.select(_each_hashtag()).groupBy("hashtag").agg(_toots_count())


def toots_per_day(toots: DataFrame) -> DataFrame:
    """day, toots_count."""
    return toots.groupBy(_day()).agg(_toots_count())


def day_totals(toots: DataFrame) -> DataFrame:
    """day, toots_count, total_length."""
    return toots.groupBy(_day()).agg(_toots_count(), _total_length())


def toots_by_lang_per_day(toots: DataFrame) -> DataFrame:
    """day, lang, toots_count."""
    return toots.groupBy(_day(), "lang").agg(_toots_count())


# Sums and counts are whole numbers, so a quotient is the same in whatever order rows came.
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
            is_keyed_alike=False,
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
    """event_at, lang, username, hashtags, length (characters) of all toots.

    Read in parts, at once, by sessions that all see what `connection` does in its transaction:
    that must stay open until the frame was used.
    """
    row = connection.execute(_EXPORT_SNAPSHOT).fetchone()
    assert row is not None
    snapshot, blocks = row
    reader = (
        spark.read.format("jdbc")
        .options(**jdbc_options(postgres_url))
        .option("sessionInitStatement", _USE_SNAPSHOT.format(snapshot))
        # Not all rows at once; and one transaction, which the snapshot is for, from the start.
        .option("fetchsize", 10_000)
    )
    parts = (
        reader.option("query", _READ_TOOTS.format(blocks=part)).load() for part in _parts(blocks)
    )
    return reduce(DataFrame.union, parts)


def _parts(blocks: int) -> list[str]:
    """Conditions that between them cover the table's blocks; the last has no end."""
    size = max(_BLOCKS_A_PART, -(-blocks // _MOST_PARTS))
    starts = range(0, max(blocks, 1), size)
    return [
        f"ctid >= '({start},0)'::tid"
        + (f" AND ctid < '({start + size},0)'::tid" if start != starts[-1] else "")
        for start in starts
    ]


def jdbc_options(postgres_url: SecretStr) -> dict[str, str]:
    """The database for Spark's JDBC source. The password is an option, never part of the url.

    Of the url's parameters the ones about TLS are handed on; the two drivers share their names.
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
