"""The end of Spark's JVM while it is used, as one line that says what to do.

What belongs here: the exit status of the JVM of this process. Without it the failure is a traceback
of a lost connection.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL
from subprocess import Popen, TimeoutExpired
from typing import Any

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.spark.memory import Workload, driver_memory

# Of a JVM with -XX:+ExitOnOutOfMemoryError.
_OUT_OF_MEMORY = 3
_SECONDS_TO_END = 5


class SparkEndedError(PlatformError):
    """Spark's JVM ended while it was used, most often for lack of memory."""


@contextmanager
def jvm_end_explained(settings: Settings, workload: Workload = "stream") -> Iterator[None]:
    """Raise `SparkEndedError` instead of whatever fails because the JVM has ended.

    Args:
        settings: The settings of the session.
        workload: The workload of the session; see `build_session`.
    """
    try:
        yield
    except Exception as error:
        status = _exit_status(error)
        if status is None:
            raise
        raise SparkEndedError(_explained(status, driver_memory(settings, workload))) from None


def _exit_status(error: Exception) -> int | None:
    """Return the exit status of the JVM of this process; None if it lives or was never started."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway  # noqa: SLF001 - PySpark has no public name for it
    process: Popen[bytes] | None = getattr(gateway, "proc", None)
    if process is None:
        return None
    # A connection is lost a moment before the process has ended.
    seconds = _SECONDS_TO_END if isinstance(error, Py4JError | OSError) else 0
    try:
        return process.wait(seconds)
    except TimeoutExpired:
        return None


def _explained(status: int, memory: str) -> str:
    if status == _OUT_OF_MEMORY:
        return (
            f"Spark ran out of memory (its driver had {memory}); nothing was written since the last"
            " commit: set SPARK_DRIVER_MEMORY to more, then run it again"
        )
    if status in (-SIGKILL, 128 + SIGKILL):
        return (
            f"Spark was killed (its driver had {memory}), most likely because the machine or the"
            " container has no memory left; nothing was written since the last commit: give it more"
            " memory or set SPARK_DRIVER_MEMORY to less, then run it again"
        )
    return (
        f"Spark ended with exit status {status}; nothing was written since the last commit:"
        " run it again"
    )
