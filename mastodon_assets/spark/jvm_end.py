"""The end of Spark's JVM while it is used, as one line that says what to do.

What belongs here: the exit status of the JVM of this process. Without it the failure is a traceback
of a lost connection.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL
from subprocess import Popen, TimeoutExpired
from typing import Any, cast

from mastodon_assets.errors import PlatformError

# Of a JVM with -XX:+ExitOnOutOfMemoryError.
_OUT_OF_MEMORY = 3
_SECONDS_TO_END = 30
_DRIVER_MEMORY = "spark.driver.memory="


class SparkEndedError(PlatformError):
    """Spark's JVM ended while it was used, most often for lack of memory."""


@contextmanager
def jvm_end_explained() -> Iterator[None]:
    """Raise `SparkEndedError` instead of whatever fails because the JVM has ended.

    It is a context manager, and a decorator of functions that use Spark.
    """
    try:
        yield
    except SparkEndedError:
        raise
    except Exception as error:
        process = _jvm()
        status = _exit_status(process, error) if process else None
        # One that was stopped on purpose ends with 0.
        if not process or not status:
            raise
        raise SparkEndedError(_explained(status, _memory(process))) from None


def _jvm() -> "Popen[bytes] | None":
    """Return the JVM of this process; None if none was started, as with Spark Connect."""
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway  # noqa: SLF001 - PySpark has no public name for it
    process: Popen[bytes] | None = getattr(gateway, "proc", None)
    return process


def _exit_status(process: "Popen[bytes]", error: Exception) -> int | None:
    """Return the exit status of the JVM; None if it lives."""
    from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]

    # A connection is lost a moment before the process has ended. A JVM that reports an error lives.
    is_lost = isinstance(error, Py4JError | OSError) and not isinstance(error, Py4JJavaError)
    seconds = _SECONDS_TO_END if is_lost else 0
    try:
        return process.wait(seconds)
    except TimeoutExpired:
        return None


def _memory(process: "Popen[bytes]") -> str:
    """Return the memory that the JVM was started with: a training gets another than a stream."""
    arguments = [str(argument) for argument in cast(list[object], process.args)]
    given = [text for text in arguments if text.startswith(_DRIVER_MEMORY)]
    return given[-1].removeprefix(_DRIVER_MEMORY) if given else "Spark's default"


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
