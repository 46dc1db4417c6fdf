"""The supervisor, with processes that end, fail and refuse to end."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mastodon_assets.orchestration.child_processes import Child, ChildFailedError, supervise

pytestmark = pytest.mark.usefixtures("processes")

_SUPERVISE = """
import os, sys
from mastodon_assets.orchestration.child_processes import Child, supervise

def write(name, line):
    print(name, line, flush=True)

try:
    child = Child("worker", [sys.executable, "-u", "-c", sys.argv[1]], dict(os.environ))
    supervise([child], write, seconds_to_end=float(sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
_WORKER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
_STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {_WORKER}"
_DEADLINE_SECONDS = 30


def _start(worker: str, seconds: float = 5) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _SUPERVISE, worker, str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _worker(supervisor: "subprocess.Popen[str]") -> psutil.Process:
    assert supervisor.stdout is not None
    name, pid = supervisor.stdout.readline().split()
    assert name == "worker"
    return psutil.Process(int(pid))


def _child(code: str) -> Child:
    return Child("worker", [sys.executable, "-c", code], dict(os.environ))


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("worker", [_WORKER, _STUBBORN])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_children_also_one_that_refuses(
    worker: str, sent: signal.Signals
) -> None:
    with _start(worker, seconds=0.5) as supervisor:
        child = _worker(supervisor)
        supervisor.send_signal(sent)
        assert supervisor.stdout is not None
        assert supervisor.stdout.read() == "interrupted\n"
    _wait_until(lambda: not child.is_running())


def test_a_killed_child_is_started_again() -> None:
    with _start(_WORKER) as supervisor:
        first = _worker(supervisor)
        first.kill()
        assert _worker(supervisor).pid != first.pid
        supervisor.terminate()


def test_a_line_that_cannot_be_written_is_lost_and_the_next_ones_are_not() -> None:
    code = "import sys; [print(n, flush=True) for n in range(3)]; sys.exit('error: at its end')"
    lines: list[str] = []

    def write(_name: str, line: str) -> None:
        if line == "0":
            raise OSError(errno.ENOSPC, "No space left on device")
        lines.append(line)

    with pytest.raises(ChildFailedError, match="error: at its end"):
        supervise([_child(code)], write, seconds_to_end=1)
    assert lines == ["1", "2", "error: at its end"]


@pytest.mark.parametrize("status", [1, 2])
def test_a_child_that_fails_at_its_first_start_ends_all_with_its_last_error(
    status: int, tmp_path: Path
) -> None:
    code = f"print('error: no such topic'); print('bye'); raise SystemExit({status})"
    lines: list[str] = []
    child = Child("worker", [sys.executable, "-c", code], dict(os.environ), tmp_path)
    expected = f"worker ended with status {status}: error: no such topic"
    with pytest.raises(ChildFailedError, match=expected):
        supervise([child], lambda _, line: lines.append(line), seconds_to_end=1)
    assert lines == ["error: no such topic", "bye"]


def test_what_a_child_prints_can_not_steer_the_terminal(tmp_path: Path) -> None:
    code = r"print('\x1b[31mred\x1b[0m \x1b[2J'); raise SystemExit(1)"
    lines: list[str] = []
    child = Child("worker", [sys.executable, "-c", code], dict(os.environ), tmp_path)
    with pytest.raises(ChildFailedError):
        supervise([child], lambda _, line: lines.append(line), seconds_to_end=1)
    assert lines == [r"red \x1b[2J"]
