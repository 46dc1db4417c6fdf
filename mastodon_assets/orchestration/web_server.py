"""Dagster's processes: the web server with the daemon, and a single `dagster` command.

What belongs here: how Dagster is started on our definitions. Supervision is in `child_processes`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.child_processes import (
    Child,
    WriteLine,
    supervise,
    write_to_stderr,
)

DEFINITIONS = ("-m", "mastodon_assets.definitions")
# Names the code location as the workspace.yaml of a checkout does.
WORKSPACE = ("-w", str(Path(__file__).with_name("workspace.yaml")))
# A command that a person ends by Ctrl-C is over within two seconds.
SECONDS_TO_END = 1.5


class WebPageError(PlatformError):
    """The web page cannot start. The message says why."""


def code_location() -> Sequence[str]:
    """Return the arguments that name the code location: workspace.yaml here, else our own."""
    workspace = Path("workspace.yaml")
    return ("-w", str(workspace)) if workspace.exists() else WORKSPACE


def serve_web_page(
    port: int,
    *,
    environment: Mapping[str, str],
    target: Sequence[str] = WORKSPACE,
    cwd: Path | None = None,
    write: WriteLine = write_to_stderr,
    restart: bool = True,
    others: Sequence[Child] = (),
) -> None:
    """Serve Dagster's web page with sensor and schedules until SIGINT or SIGTERM.

    Args:
        port: Port on 127.0.0.1.
        environment: Complete environment of the processes, with an absolute `DAGSTER_HOME`.
        target: Dagster's arguments that name the code location.
        cwd: Working directory of the processes; the caller's by default.
        write: Receives every line that the processes print, with the name of the process.
        restart: Whether a process that ends is restarted.
        others: Processes to run together with the web page.

    Raises:
        KeyboardInterrupt: At either signal, after all processes have ended.
        WebPageError: Dagster's instance cannot be opened.
        ChildFailedError: A process cannot start, or ends and is not to be restarted.
    """
    children = web_page_children(port, environment=environment, target=target, cwd=cwd)
    supervise([*children, *others], write, seconds_to_end=SECONDS_TO_END, restart=restart)


def web_page_children(
    port: int,
    *,
    environment: Mapping[str, str],
    target: Sequence[str] = WORKSPACE,
    cwd: Path | None = None,
) -> list[Child]:
    """Return the processes of the web page: the web server and the daemon.

    Raises:
        WebPageError: Dagster's instance cannot be opened.
    """
    _create_tables(environment)
    server = [sys.executable, "-m", "mastodon_assets.orchestration.guarded_web_server"]
    daemon = [sys.executable, "-m", "dagster._daemon", "run"]
    return [
        Child("web", [*server, "-h", "127.0.0.1", "-p", str(port), *target], environment, cwd),
        Child("daemon", [*daemon, *target], environment, cwd),
    ]


def _create_tables(environment: Mapping[str, str]) -> None:
    """Create Dagster's tables: two processes that create them at once damage them."""
    ended = subprocess.run(
        [sys.executable, "-c", "import dagster; dagster.DagsterInstance.get().dispose()"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
        raise WebPageError(
            f"cannot open Dagster's instance in {environment['DAGSTER_HOME']}: {lines[-1]}"
        )


@contextmanager
def running_dagster(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    log: Path,
    seconds_to_end: float,
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run `dagster COMMAND` in a session of its own until the block ends, with its output in `log`.

    At the end of the block it gets SIGINT, and what is left of the session after `seconds_to_end`
    is killed.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", *command],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
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
