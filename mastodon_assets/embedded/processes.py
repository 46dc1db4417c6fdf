"""The embedded servers as processes: starting, finding and stopping them, and their ports.

What belongs here: whatever holds for any server.

A server is found by a marker in its own command line, not by a stored process id. A stored id can
be lost, or belong to another process by now. The command line exists as long as the server,
whoever started it.
"""

import fcntl
import os
import pwd
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import last_error_line, read_text, write_atomically
from mastodon_assets.ports import is_free

# Below the range from which systems take local ports of outgoing connections. A port that is free
# now therefore stays free until the server binds it.
PORTS = range(20_000, 32_000)
# The variables that a server needs. It does not get the others, because some hold tokens.
# The workers of a server that was killed end by themselves soon after it.
_SECONDS_TO_UNLOCK = 20
_LARGEST_LOG = 10 * 2**20
INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "JAVA_TOOL_OPTIONS")


class ServerStartError(PlatformError):
    """A server did not start. The message contains the log's path and its last error line."""


class ServerStopError(PlatformError):
    """A server could not be stopped."""


class ServerElsewhereError(PlatformError):
    """A server of this state folder runs where this process cannot see it, as in a container."""


@contextmanager
def server_lock(lock: Path, name: str) -> Iterator[int]:
    """Hold the lock of a server; the server inherits it and keeps it for its life.

    The kernel gives it up with the last process of the server, whatever ended it. It is valid for
    all containers and namespaces that share the file, in which the process itself is not visible.

    Args:
        lock: The file, next to the data.
        name: Name of the server in messages.

    Yields:
        The descriptor to pass to the server.

    Raises:
        ServerElsewhereError: A server holds the lock.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _wait_for_lock(descriptor):
            raise ServerElsewhereError(
                f"{name} already runs on {lock.parent} where this process cannot see it, as in"
                " another container; stop it there, or set MASTODON_ASSETS_HOME to another folder"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(lock: Path) -> bool:
    """Return whether a server holds `lock`."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _wait_for_lock(descriptor)
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int) -> bool:
    """Lock the file; return whether that was possible."""
    deadline = time.monotonic() + _SECONDS_TO_UNLOCK
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def find_server(marker: str) -> psutil.Process | None:
    """Find the running process that has `marker` among its arguments.

    A server that has just forked may appear twice; the oldest is the server.
    """
    matches = [
        process
        for process in psutil.process_iter(["cmdline", "status", "create_time"])
        if marker in (process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    return min(matches, key=lambda process: process.info["create_time"], default=None)


def start_server(
    name: str,
    arguments: Sequence[str],
    is_ready: Callable[[], bool],
    *,
    cwd: Path,
    log: Path,
    lock: int | None = None,
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = 60,
    cancelled: threading.Event | None = None,
) -> None:
    """Start a server that outlives this process and its terminal, and wait until it is ready.

    Args:
        name: Name of the server in messages.
        arguments: Its command line.
        is_ready: Whether the server answers.
        cwd: Its working directory.
        log: File to which its output is appended. A large one is renamed to `….1` before.
        lock: Descriptor of its lock, see `server_lock`.
        environment: Variables for it besides the inherited ones.
        user: Id of the user to run it as, if not ours.
        seconds: How long to wait.
        cancelled: If it is set meanwhile, the server is killed.

    Raises:
        ServerStartError: The server ends, is not ready in time, or its start is cancelled.
    """
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as output:
        log_start = output.tell()
        server = subprocess.Popen(
            arguments,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
            **_environment_and_user(user, environment),
        )
    # Without it a server that ends would stay a zombie as long as this process runs.
    threading.Thread(target=server.wait, daemon=True).start()
    deadline = time.monotonic() + seconds
    while not is_ready():
        if cancelled and cancelled.is_set():
            server.kill()
            raise ServerStartError(f"the start of {name} was cancelled")
        if server.poll() is not None:
            failure = "ended while starting"
        elif time.monotonic() > deadline:
            failure = f"does not answer after {seconds:.0f} s"
        else:
            time.sleep(0.1)
            continue
        reason = last_error_line(log, log_start) or "it printed nothing"
        raise ServerStartError(f"{name} {failure}: {reason} (log: {log})")


def run_tool(
    name: str, arguments: Sequence[str], *, cwd: Path, log: Path, user: int | None = None
) -> None:
    """Run a tool of a server to its end, with its output in `log`.

    Raises:
        ServerStartError: The tool fails or takes more than five minutes.
    """
    with log.open("wb") as output:
        try:
            status: int | str = subprocess.run(
                arguments,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=300,
                **_environment_and_user(user),
            ).returncode
        except subprocess.TimeoutExpired:
            status = "none after five minutes"
    if status != 0:
        reason = last_error_line(log) or "it printed nothing"
        raise ServerStartError(f"{name} failed (status {status}): {reason} (log: {log})")


def _environment_and_user(
    user: int | None, more: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return arguments for `subprocess`: a small environment, and the user if not ours."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    arguments: dict[str, Any] = {"env": environment | {"TZ": "UTC"} | dict(more or {})}
    if user is not None:
        arguments |= {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}
    return arguments


def stop(process: psutil.Process, *steps: tuple[signal.Signals, float]) -> None:
    """Send each step's signal and wait its seconds, until the process has ended.

    Raises:
        ServerStopError: The process survives the last step, or belongs to another user.
    """
    for sent, seconds in steps:
        try:
            # psutil refuses if the id belongs to another process by now.
            process.send_signal(sent)
            process.wait(timeout=seconds)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            continue
        except psutil.AccessDenied as error:
            raise ServerStopError(
                f"not allowed to stop process {process.pid}; run as the user who started it"
            ) from error
        return
    raise ServerStopError(f"process {process.pid} does not end; run: kill -9 {process.pid}")


def choose_port(note: Path, *, avoid: Sequence[int] = ()) -> int:
    """Return the port stored in the file `note` if it is free; otherwise choose and store one."""
    stored = read_port(note)
    if stored is not None and stored not in avoid and is_free(stored):
        return stored
    free = (port for port in random.sample(PORTS, len(PORTS)) if port not in avoid)
    port = next((port for port in free if is_free(port)), None)
    if port is None:
        raise ServerStartError(f"no free port on 127.0.0.1 from {PORTS[0]} to {PORTS[-1]}")
    write_atomically(note, f"{port}\n")
    return port


def read_port(note: Path) -> int | None:
    """Return the port stored in the file `note`; None if there is none."""
    text = read_text(note)
    return int(text) if text and text.isdecimal() else None


def accepts_connections(port: int) -> bool:
    """Return whether something listens on 127.0.0.1:`port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
