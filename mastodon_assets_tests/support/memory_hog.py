"""Take more memory than Spark's driver has: run as a process of its own by the test of it."""

import sys

from pyspark import SparkContext

from mastodon_assets.config.settings import load_settings
from mastodon_assets.spark.jvm_end import SparkEndedError, jvm_end_explained
from mastodon_assets.spark.session import build_session


def main() -> None:
    settings = load_settings(spark_master="local[1]", spark_driver_memory="512m")
    build_session(settings)
    gateway = SparkContext._gateway
    assert gateway is not None
    try:
        with jvm_end_explained():
            gateway.new_array(gateway.jvm.long, 2**29)
    except SparkEndedError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
