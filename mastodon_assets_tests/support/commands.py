"""Commands as a person starts them: in this process, or in one of their own."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import pytest

from mastodon_assets.cli import app

PROGRAM = (sys.executable, "-m", "mastodon_assets.cli.main")


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


class Commands:
    """Runs commands in this process, with the environment that they are given."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, **environment: str) -> Ended:
        with self._monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            self._capsys.readouterr()
            status = app.run(arguments)
        captured = self._capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    def failure(self, status: int, *arguments: str, **environment: str) -> str:
        """The one line on stderr of a command that must end with `status`."""
        ended = self(*arguments, **environment)
        assert ended.status == status, ended
        assert ended.out == ""
        lines = ended.err.splitlines()
        assert len(lines) == 1, ended.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


def started(*arguments: str, **environment: str) -> AbstractContextManager["subprocess.Popen[str]"]:
    """The command in a process of its own while the block runs; killed at its end."""
    return _started(["--default-signal=INT,HUP"], arguments, environment)


def started_in_background(
    *arguments: str, **environment: str
) -> AbstractContextManager["subprocess.Popen[str]"]:
    """The same as a shell starts `command &` in a script: with SIGINT ignored."""
    return _started(["--ignore-signal=INT", "--default-signal=HUP"], arguments, environment)


def started_by_nohup(
    *arguments: str, **environment: str
) -> AbstractContextManager["subprocess.Popen[str]"]:
    """The same with SIGHUP ignored, so that it outlives its terminal."""
    return _started(["--default-signal=INT", "--ignore-signal=HUP"], arguments, environment)


@contextmanager
def _started(
    signals: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        ["env", *signals, *PROGRAM, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(90, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@contextmanager
def logged(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """The command with all its output in `log` while the block runs; killed at its end."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def read_until(stream: IO[str] | None, *wanted: str) -> str:
    """The lines of the stream until each of `wanted` has been seen."""
    assert isinstance(stream, TextIOWrapper)
    read = ""
    while not all(each in read for each in wanted):
        line = stream.readline()
        assert line, f"ended after: {read}"
        read += line
    return read
