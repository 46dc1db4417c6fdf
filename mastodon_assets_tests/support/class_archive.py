"""Class archives of Spark and Kafka for a test run: their JVMs then start in half the time.

    python -m mastodon_assets_tests.support.class_archive

Writes them to the cache unless they are there: Spark's as the first command with a session of its
own would, Kafka's for the tests alone. What belongs here: work that loads the classes which the
tests need.
"""

import os
import tempfile
from pathlib import Path

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import kafka
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.sentiment.features.pipeline import DEMO_PARAMETERS
from mastodon_assets.sentiment.training.fit import fit_pipeline
from mastodon_assets.spark.session import ShortLivedSession
from mastodon_assets_tests.support.java import KAFKA_OPTIONS, QUICK_JVM, kafka_archive


def main() -> None:
    """Write both."""
    _write_kafkas()
    _write_sparks()


def _write_kafkas() -> None:
    """Start a broker with a topic, and end it, which writes the classes that it loaded."""
    archive = kafka_archive()
    if not (options := archive.options_to_write()):
        return
    os.environ[KAFKA_OPTIONS] = f"{QUICK_JVM} {options}"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        create_topics(kafka.start(home, print), ["topic"])
        broker = kafka.find(home)
        assert broker is not None
        kafka.stop_server(broker)
    archive.keep()
    archive.give_up()
    assert archive.options_to_read(), "the broker has written no archive"


def _write_sparks() -> None:
    """Fit a tiny model and plan a read of Kafka."""
    with ShortLivedSession(load_settings(spark_master="local[2]"), print) as session:
        spark = session()
        texts = [("a good day", 1.0), ("a bad day", 0.0)] * 2
        rows = spark.createDataFrame(texts, "text string, target double")
        model = fit_pipeline(rows, DEMO_PARAMETERS, train_rows=len(texts), report=print)
        model.transform(rows).groupBy("prediction").count().toArrow()
        kafka = spark.readStream.format("kafka").option("kafka.bootstrap.servers", "127.0.0.1:1")
        kafka.option("subscribe", "none").load().selectExpr("CAST(value AS string)").explain()


if __name__ == "__main__":
    main()
