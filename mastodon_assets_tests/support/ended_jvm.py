"""A session whose JVM ended without memory, without a JVM."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NoReturn

from py4j.protocol import Py4JNetworkError  # type: ignore[import-untyped]
from pyspark import SparkContext

MESSAGE = (
    "Spark ran out of memory (its driver had 600m); nothing was written since the last commit:"
    " set SPARK_DRIVER_MEMORY to more, then run it again"
)


@contextmanager
def ended_jvm() -> Iterator[Callable[[], NoReturn]]:
    """Yield a function that fails as a session does whose JVM ran out of memory."""

    def session() -> NoReturn:
        raise Py4JNetworkError("Answer from Java side is empty")

    # As PySpark starts it, and with the exit status of ExitOnOutOfMemoryError.
    script = ["sh", "-c", "exit 3", "--conf", "spark.driver.memory=600m"]
    with subprocess.Popen(script) as process:
        process.wait()
    gateway = SparkContext._gateway
    SparkContext._gateway = SimpleNamespace(proc=process)
    try:
        yield session
    finally:
        SparkContext._gateway = gateway
