"""How the tests' JVMs start: their lives are short, so they compile fast code less eagerly.

What belongs here: options of Java that change how fast it works, and nothing of what it does.
"""

from mastodon_assets.embedded.kafka import KAFKA_VERSION
from mastodon_assets.jvm.class_archive import ClassArchive
from mastodon_assets.jvm.java import JavaNotFoundError, java_home
from mastodon_assets.jvm.maven import cache_dir

_FEW_COMPILATIONS = "-XX:TieredStopAtLevel=1"
# For JVMs whose collector nothing else chooses: a second choice is an error.
QUICK_JVM = f"{_FEW_COMPILATIONS} -XX:+UseSerialGC"
# What Kafka's own scripts and the embedded broker read.
KAFKA_OPTIONS = "KAFKA_JVM_PERFORMANCE_OPTS"


def quick_starts() -> dict[str, str]:
    """Return the variables that Kafka and Spark's own scripts read.

    Spark's are for each driver, for what composes its command, for cluster and server processes.
    """
    return {
        "SPARK_SUBMIT_OPTS": _FEW_COMPILATIONS,
        "SPARK_LAUNCHER_OPTS": QUICK_JVM,
        "SPARK_DAEMON_JAVA_OPTS": _FEW_COMPILATIONS,
        KAFKA_OPTIONS: f"{QUICK_JVM} {_kafka_classes()}",
    }


def kafka_archive() -> ClassArchive:
    """Return the class archive of the embedded broker.

    Raises:
        JavaNotFoundError: There is no Java.
    """
    cache = cache_dir()
    return ClassArchive(cache, java_home(cache), [cache / f"kafka-{KAFKA_VERSION}"])


def _kafka_classes() -> str:
    try:
        return kafka_archive().options_to_read()
    except JavaNotFoundError:
        return ""
