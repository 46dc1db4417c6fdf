"""Spark's class archive for a test run: its JVMs then start in half the time.

    python -m mastodon_assets_tests.support.class_archive

Writes it to the cache, as the first command with a session of its own would, unless it is there.
What belongs here: work that loads the classes which the tests need.
"""

from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.features.pipeline import DEMO_PARAMETERS
from mastodon_assets.sentiment.training.fit import fit_pipeline
from mastodon_assets.spark.session import ShortLivedSession


def main() -> None:
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
