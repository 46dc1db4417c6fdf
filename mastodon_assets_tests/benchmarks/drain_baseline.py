"""The usual way, for comparison only: three streaming queries of their own that append by JDBC.

Raw rows, counts a minute and language, mean length a minute and user; update mode, Spark's default
of 200 shuffle partitions, `from_json` with a schema, one JDBC append a micro-batch and query. It
reads what is in the topic now and ends. Its windows are wrong as soon as one spans two batches,
and it handles neither edits nor deletes nor bad messages: that is what is being compared with.
"""

import tempfile
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.kafka.client import spark_options
from mastodon_assets.spark.memory import driver_memory
from mastodon_assets.spark.session import connector_jars, file_uri, prepare_environment

_MESSAGE = """
    instance string, id string, uri string, created_at string, edited_at string,
    received_at string, username string, user_id string, language string, content_html string,
    content string, hashtags array<string>, favourites int, reblogs int, replies int
"""
_TABLES = """
CREATE SCHEMA baseline;
CREATE TABLE baseline.toots_raw (
    instance text, id text, uri text, created_at timestamptz, edited_at timestamptz,
    received_at timestamptz, username text, user_id text, lang text, content_html text,
    content_txt text, hashtags text[], favourites int, reblogs int, replies int);
CREATE TABLE baseline.toot_metrics_windowed (
    window_start timestamptz, window_end timestamptz, lang text, toots_count bigint,
    avg_length double precision);
CREATE TABLE baseline.user_avg_length_windowed (
    window_start timestamptz, window_end timestamptz, username text, avg_length double precision);
"""


def main() -> None:
    settings = load_settings()
    with psycopg.connect(settings.postgres_url.get_secret_value()) as connection:
        connection.execute(_TABLES)
    prepare_environment(settings)
    jars = ",".join(file_uri(jar) for jar in connector_jars())
    spark = (
        SparkSession.builder.master(settings.spark_master)
        .config("spark.jars", jars)
        .config("spark.driver.memory", driver_memory(settings))
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    toots = _toots(spark, settings)
    window = F.window("created_at", "1 minute")
    length = F.avg(F.length("content_txt")).alias("avg_length")
    by_language = toots.groupBy(window.alias("w"), "lang").agg(
        F.count("*").alias("toots_count"), length
    )
    by_user = toots.groupBy(window.alias("w"), "username").agg(length)
    with tempfile.TemporaryDirectory() as folder:
        queries = [
            _append(toots, "toots_raw", settings, Path(folder)),
            _append(_flat(by_language), "toot_metrics_windowed", settings, Path(folder)),
            _append(_flat(by_user), "user_avg_length_windowed", settings, Path(folder)),
        ]
        for query in queries:
            query.awaitTermination()
    spark.stop()


def _toots(spark: SparkSession, settings: Settings) -> DataFrame:
    message = F.from_json(F.col("value").cast("string"), _MESSAGE)
    return (
        spark.readStream.format("kafka")
        .options(**spark_options(settings))
        .option("subscribe", settings.kafka_topic)
        .option("startingOffsets", "earliest")
        .load()
        .select(message.alias("m"))
        .select("m.*")
        .withColumn("created_at", F.to_timestamp("created_at"))
        .withColumn("edited_at", F.to_timestamp("edited_at"))
        .withColumn("received_at", F.to_timestamp("received_at"))
        .withColumn("language", F.coalesce("language", F.lit("und")))
        .withColumnsRenamed({"language": "lang", "content": "content_txt"})
    )


def _flat(windowed: DataFrame) -> DataFrame:
    return windowed.select(
        F.col("w.start").alias("window_start"),
        F.col("w.end").alias("window_end"),
        *(name for name in windowed.columns if name != "w"),
    )


def _append(frame: DataFrame, table: str, settings: Settings, folder: Path) -> StreamingQuery:
    parts = conninfo_to_dict(settings.postgres_url.get_secret_value())

    def write(batch: DataFrame, _batch_id: int) -> None:
        (
            batch.write.format("jdbc")
            .option("url", f"jdbc:postgresql://{parts['host']}:{parts['port']}/{parts['dbname']}")
            .option("user", str(parts["user"]))
            .option("password", str(parts["password"]))
            .option("driver", "org.postgresql.Driver")
            .option("dbtable", f"baseline.{table}")
            .mode("append")
            .save()
        )

    return (
        frame.writeStream.outputMode("update")
        .foreachBatch(write)
        .option("checkpointLocation", file_uri(folder / table))
        .trigger(availableNow=True)
        .start()
    )


if __name__ == "__main__":
    main()
