"""A supervisor of child processes: restart, one log, one Ctrl-C.

What belongs here: what holds for any long-lived command.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import names_failure

logger = logging.getLogger(__name__)

# Receives the name of a process and a line of its output.
WriteLine = Callable[[str, str], None]

_POLL_SECONDS = 0.2
# A process that fails sooner than this after its first start will not do better at the next one.
_TRIAL_SECONDS = 30
_LONGEST_WAIT_SECONDS = 60
# Exit status of our commands, and of Dagster's, for wrong settings or options.
_WRONG_USE = 2
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def write_to_stderr(name: str, line: str) -> None:
    """Write a line to standard error, with the name of the process in front."""
    sys.stderr.write(f"{name:<9} {line}\n")
    sys.stderr.flush()


class ChildFailedError(PlatformError):
    """A process cannot run. The message names it and contains its last error line."""


@dataclass(frozen=True)
class Child:
    """A process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path | None = None


def supervise(
    children: Sequence[Child],
    write: WriteLine,
    *,
    seconds_to_end: float,
    restart: bool = True,
    each_round: Callable[[], None] = lambda: None,
) -> None:
    """Run processes until SIGINT or SIGTERM, and restart those that end.

    A process that is restarted again and again waits up to a minute in between.

    Args:
        children: The processes.
        write: Receives every line they print, from several threads.
        seconds_to_end: How long they may take to end before they are killed.
        restart: Whether a process that ends is restarted.
        each_round: Called several times per second.

    Raises:
        KeyboardInterrupt: At either signal, after all processes have ended.
        ChildFailedError: A process rejects its settings, fails within half a minute after its
            first start, or ends and is not to be restarted.
    """
    # A shell starts `… &` with SIGINT ignored, which all children would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    supervised = [_Supervised(child, write, restart=restart) for child in children]
    try:
        while True:
            each_round()
            for each in supervised:
                each.check()
            time.sleep(_POLL_SECONDS)
    finally:
        _end(supervised, seconds_to_end)


class _Supervised:
    """One child through all its starts."""

    def __init__(self, child: Child, write: WriteLine, *, restart: bool) -> None:
        self._child = child
        self._write = write
        self._restart = restart
        self._starts = 0
        self._start_at = self._started_at = time.monotonic()
        self._wait = 1.0
        self._last_lines: deque[str] = deque(maxlen=100)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        # Each start leads a session, in which its own children may outlive it.
        self._sessions: list[int] = []

    def check(self) -> None:
        """Start the process if that is due; see whether it has ended."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
            return
        status = self._process.poll()
        if status is None:
            return
        lived = now - self._started_at
        is_hopeless = status == _WRONG_USE or (
            self._starts == 1 and lived < _TRIAL_SECONDS and status > 0
        )
        if is_hopeless or not self._restart:
            # Its last lines may still be on their way; a process of its own may keep the pipe open.
            if self._reader:
                self._reader.join(_POLL_SECONDS)
            raise ChildFailedError(
                f"{self._child.name} ended with status {status}: {self._reason()}"
            )
        self._wait = 1.0 if lived > _LONGEST_WAIT_SECONDS else min(2 * self._wait, 60)
        self._start_at = now + self._wait
        self._process = None
        logger.warning(
            "%s ended with status %s; restarting it in %.0f s", self._child.name, status, self._wait
        )

    def ask_to_end(self) -> None:
        """Send SIGTERM if the process runs."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def has_ended(self) -> bool:
        """Return whether the process has ended or never ran."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """Kill what is left of all its sessions."""
        for session in self._sessions:
            is_ours = self._process is not None and session == self._process.pid
            # The id of an ended leader may belong to a stranger by now.
            if is_ours or not psutil.pid_exists(session):
                with suppress(ProcessLookupError):
                    os.killpg(session, signal.SIGKILL)
        if self._process:
            self._process.wait()

    def _start(self, now: float) -> None:
        self._process = subprocess.Popen(
            self._child.command,
            cwd=self._child.cwd,
            env=dict(self._child.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C at a terminal reaches the supervisor only, which ends all in order.
            start_new_session=True,
        )
        self._sessions.append(self._process.pid)
        self._starts += 1
        self._started_at = now
        self._last_lines.clear()
        self._reader = threading.Thread(target=self._copy_output, args=[self._process], daemon=True)
        self._reader.start()

    def _copy_output(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as output, suppress(ValueError):
            for text in output:
                line = _printable(_COLOUR.sub("", text.rstrip()))
                self._last_lines.append(line)
                # A full disk or a closed terminal loses lines. Unread, they would end the process.
                with suppress(OSError):
                    self._write(self._child.name, line)

    def _reason(self) -> str:
        lines = [line.strip() for line in self._last_lines if line.strip()]
        failures = [line for line in lines if names_failure(line)]
        return (failures or lines or ["it printed nothing"])[-1][:300]


def _printable(line: str) -> str:
    """Escape control characters, which may come from the network."""
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode()
        for each in line
    )


def _end(supervised: Sequence[_Supervised], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    try:
        for each in supervised:
            each.ask_to_end()
        while time.monotonic() < deadline and not all(each.has_ended() for each in supervised):
            time.sleep(0.05)
    finally:
        # Also at a second Ctrl-C.
        for each in supervised:
            each.kill()
