"""Dagster's processes: the web page with its daemon, and a single `dagster` command.

What belongs here: how `dagster …` is started on our definitions and how it ends.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import last_error_line

DEFINITIONS = ("-m", "mastodon_assets.definitions")
# A command that a person ends by Ctrl-C is over within two seconds.
_SECONDS_TO_END = 1.5


class WebPageError(PlatformError):
    """The web page ended by itself. The message names the log if there is one."""


def serve_web_page(
    port: int,
    *,
    environment: Mapping[str, str],
    target: Sequence[str] = DEFINITIONS,
    cwd: Path | None = None,
    log: Path | None = None,
) -> None:
    """Serve Dagster's web page with sensor and schedules until SIGINT or SIGTERM.

    Args:
        port: Port on 127.0.0.1. It must be free: Dagster stays up without its page otherwise.
        environment: Complete environment of the processes, with an absolute `DAGSTER_HOME`.
        target: Dagster's arguments that name the code location.
        cwd: Working directory of the processes; the caller's by default.
        log: File for their output; the caller's output by default.

    Raises:
        KeyboardInterrupt: At either signal, after all processes have ended.
        WebPageError: The web page ended by itself.
    """
    # A shell starts `… &` with SIGINT ignored, and Dagster treats SIGTERM as SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    command = ["dev", "-h", "127.0.0.1", "-p", str(port), *target]
    with running_dagster(
        command, cwd=cwd, environment=environment, log=log, seconds_to_end=_SECONDS_TO_END
    ) as process:
        process.wait()
    shown = f": {last_error_line(log)} (log: {log})" if log else "; see the lines above"
    raise WebPageError(f"the web page ended by itself{shown}")


@contextmanager
def running_dagster(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    log: Path | None = None,
    seconds_to_end: float,
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run `dagster COMMAND` in a session of its own until the block ends.

    At the end of the block it gets SIGINT, and what is left of the session after `seconds_to_end`
    is killed.
    """
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", *command],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            # Ctrl-C at a terminal reaches this process only, which then ends the session in order.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process, seconds_to_end)


def _end(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
