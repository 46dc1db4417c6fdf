"""The six batch tables: what each one says about all toots.

What belongs here: `DataFrame -> DataFrame` functions and the reading and writing around them.
"""

from collections.abc import Callable, Mapping

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from mastodon_assets.warehouse.database import (
    note_progress,
    replace_rows,
    take_write_lock,
    toots_version,
    transaction,
)
from mastodon_assets.warehouse.registry import TABLES

# One query without partitions reads one snapshot.
_READ_TOOTS = """
SELECT event_at, lang, username, hashtags, char_length(content_txt) AS length
  FROM masto.toots_raw
"""

_TLS_PARAMETERS = ("sslmode", "sslrootcert", "sslcert", "sslkey")

_NAMES = (
    "batch_active_users",
    "batch_hashtag_by_hour",
    "batch_top_hashtag",
    "batch_toots_per_day",
    "batch_avg_len_per_day",
    "batch_toots_by_lang_per_day",
)


def active_users(toots: DataFrame, *, min_toots: int) -> DataFrame:
    """username, toots_count, avg_len of users with at least `min_toots` toots."""
    return (
        toots.groupBy("username")
        .agg(F.count("*").alias("toots_count"), _mean_length().alias("avg_len"))
        .where(F.col("toots_count") >= min_toots)
        .select("username", "toots_count", "avg_len")
    )


def hashtag_by_hour(toots: DataFrame) -> DataFrame:
    """hour, hashtag, toots_count."""
    return (
        toots.select(F.date_trunc("hour", "event_at").alias("hour"), _each_hashtag())
        .groupBy("hour", "hashtag")
        .agg(F.count("*").alias("toots_count"))
        .select("hour", "hashtag", "toots_count")
    )


def top_hashtag(toots: DataFrame) -> DataFrame:
    """hashtag, toots_count, rank of the most used one; all that share the first rank."""
    # One row a hashtag is left when the window runs, so a single partition is right.
    by_count = Window.partitionBy(F.lit(0)).orderBy(F.desc("toots_count"))
    return (
        toots.select(_each_hashtag())
        .groupBy("hashtag")
        .agg(F.count("*").alias("toots_count"))
        .withColumn("rank", F.rank().over(by_count))
        .where(F.col("rank") == 1)
        .select("hashtag", "toots_count", "rank")
    )


def toots_per_day(toots: DataFrame) -> DataFrame:
    """day, toots_count."""
    return toots.groupBy(_day()).agg(F.count("*").alias("toots_count"))


def avg_len_per_day(toots: DataFrame) -> DataFrame:
    """day, avg_len."""
    return toots.groupBy(_day()).agg(_mean_length().alias("avg_len"))


def toots_by_lang_per_day(toots: DataFrame) -> DataFrame:
    """day, lang, toots_count."""
    return toots.groupBy(_day(), "lang").agg(F.count("*").alias("toots_count"))


def batch_tables(*, min_toots: int) -> Mapping[str, Callable[[DataFrame], DataFrame]]:
    """Table name to the function that computes it from `read_toots`."""
    functions: tuple[Callable[[DataFrame], DataFrame], ...] = (
        lambda toots: active_users(toots, min_toots=min_toots),
        hashtag_by_hour,
        top_hashtag,
        toots_per_day,
        avg_len_per_day,
        toots_by_lang_per_day,
    )
    return dict(zip(_NAMES, functions, strict=True))


def refresh_batch_table(
    spark: SparkSession, postgres_url: SecretStr, name: str, *, min_toots: int
) -> int:
    """Compute one table from all toots and replace it in one transaction; rows changed.

    The version of the toots is read before the toots: what arrives in between is at worst done
    again by the next refresh.
    """
    with transaction(postgres_url, snapshot=True) as connection:
        version = toots_version(connection)
    rows = batch_tables(min_toots=min_toots)[name](read_toots(spark, postgres_url)).toArrow()
    with transaction(postgres_url) as connection:
        take_write_lock(connection)
        changed = replace_rows(connection, TABLES[name], rows)
        note_progress(connection, name, toots_version=version)
    return changed


def read_toots(spark: SparkSession, postgres_url: SecretStr) -> DataFrame:
    """event_at, lang, username, hashtags, length (characters) of all toots, in one snapshot."""
    options = jdbc_options(postgres_url)
    return (
        spark.read.format("jdbc")
        .options(**options)
        .option("query", _READ_TOOTS)
        .option("fetchsize", 10_000)
        .load()
    )


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


def _day() -> Column:
    return F.to_date("event_at").alias("day")


def _each_hashtag() -> Column:
    return F.explode("hashtags").alias("hashtag")


def _mean_length() -> Column:
    # Sum and count are whole numbers, so every order of rows gives the same quotient.
    return F.sum("length").cast("double") / F.count("*")
