"""Servers as processes of the machine: start them so that they outlive us, find them, stop them.

What belongs here: processes and ports. What does not: which server it is.

A server is known by a marker in its own command line, not by a noted process id. A note can be
lost, or name a process that took over the number; the command line is there as long as the server
is, whoever started it and however that one ended.
"""

import os
import pwd
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import last_error_line, read_text, write_atomically
from mastodon_assets.ports import is_free

# Below the range from which systems take the local port of outgoing connections, so that a port
# that was free a moment ago stays free until the server binds it.
PORTS = range(20_000, 32_000)
# What a server needs of our environment. Not all of it: there are tokens in it.
INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "JAVA_TOOL_OPTIONS")


class ServerStartError(PlatformError):
    """A server did not come up. The message has the log's path and its last telling line."""


class ServerStopError(PlatformError):
    """A server could not be stopped."""


def find_server(marker: str) -> psutil.Process | None:
    """The running process that has `marker` among its arguments.

    A server that has just forked may show twice; the oldest is the server.
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
    user: int | None = None,
    seconds: float = 60,
) -> None:
    """Start a server that outlives this process and its terminal; wait until `is_ready`.

    What it prints is added to `log`. `user` is the id of the user it runs as, if not ours.
    Raises: ServerStartError where it ends or does not answer within `seconds`.
    """
    with log.open("ab") as output:
        log_start = output.tell()
        server = subprocess.Popen(
            arguments,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **_environment_and_user(user),
        )
    # Reaps it where this process lives on; else a server that ended would stay as a zombie.
    threading.Thread(target=server.wait, daemon=True).start()
    deadline = time.monotonic() + seconds
    while not is_ready():
        if server.poll() is not None:
            failure = "ended at its start"
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
    """Run a server's tool to its end, with what it prints in `log`.

    Raises: ServerStartError where it fails or takes more than five minutes.
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


def _environment_and_user(user: int | None) -> dict[str, Any]:
    """Arguments for `subprocess`: a small environment, and the user of that id if not ours."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    arguments: dict[str, Any] = {"env": environment | {"TZ": "UTC"}}
    if user is not None:
        arguments |= {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}
    return arguments


def stop(process: psutil.Process, *steps: tuple[signal.Signals, float]) -> None:
    """Send the signal of each step and wait its seconds, until the process is gone.

    Raises: ServerStopError where it outlives the last step.
    """
    for sent, seconds in steps:
        try:
            # psutil refuses where the number has passed to another process.
            process.send_signal(sent)
            process.wait(timeout=seconds)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            continue
        except psutil.AccessDenied as error:
            raise ServerStopError(
                f"may not stop process {process.pid}; run as the user who started it"
            ) from error
        return
    raise ServerStopError(f"process {process.pid} does not end; stop it by hand: kill -9")


def choose_port(note: Path, *, avoid: Sequence[int] = ()) -> int:
    """The port noted in the file `note` if it is free, else another free one, which is noted."""
    noted = read_port(note)
    if noted is not None and noted not in avoid and is_free(noted):
        return noted
    free = (port for port in random.sample(PORTS, len(PORTS)) if port not in avoid)
    port = next((port for port in free if is_free(port)), None)
    if port is None:
        raise ServerStartError(f"no free port on 127.0.0.1 from {PORTS[0]} to {PORTS[-1]}")
    write_atomically(note, f"{port}\n")
    return port


def read_port(note: Path) -> int | None:
    """The port noted in the file `note`; None where there is none."""
    text = read_text(note)
    return int(text) if text and text.isdecimal() else None


def accepts_connections(port: int) -> bool:
    """Whether something listens on 127.0.0.1:`port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
