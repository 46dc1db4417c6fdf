"""Ports, processes that fail or do not end, and the files that both use."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event

import psutil
import pytest

from mastodon_assets.config.state_folder import StateFolderError, make_private_folder
from mastodon_assets.embedded import processes
from mastodon_assets.embedded.processes import (
    ServerStartError,
    choose_port,
    find_server,
    read_port,
    run_tool,
    start_server,
    stop,
)
from mastodon_assets.files import last_error_line, write_atomically
from mastodon_assets.ports import is_free


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.usefixtures("loopback")
def test_the_noted_port_is_taken_again_while_it_is_free(tmp_path: Path) -> None:
    note = tmp_path / "port"
    first = choose_port(note)
    assert choose_port(note) == first == read_port(note)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first))
        squatter.listen()
        assert not is_free(first)
        second = choose_port(note)
        assert second != first
        assert read_port(note) == second
    third = choose_port(tmp_path / "other", avoid=[second])
    assert third != second


@pytest.mark.usefixtures("processes")
def test_a_note_that_is_no_port_is_as_good_as_none(tmp_path: Path) -> None:
    note = tmp_path / "port"
    note.write_text("x")
    assert read_port(note) is None
    assert choose_port(note) == read_port(note)


@pytest.mark.usefixtures("processes")
def test_a_server_that_ends_at_its_start_is_reported_in_one_line_with_its_log(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.write_text("ERROR of an earlier start\n")
    code = "print('FATAL: no room'); print('bye'); raise SystemExit(3)"
    expected = f"Server ended while starting: FATAL: no room (log: {log})"
    with pytest.raises(ServerStartError, match=re.escape(expected)):
        start_server("Server", python(code), lambda: False, cwd=tmp_path, log=log)


@pytest.mark.usefixtures("processes")
def test_a_large_log_is_renamed_at_a_start_and_the_one_before_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_LARGEST_LOG", 5)
    log = tmp_path / "log"
    for line in ("first", "second", "third"):
        with pytest.raises(ServerStartError, match=line):
            start_server("S", python(f"print('{line}')"), lambda: False, cwd=tmp_path, log=log)
    assert log.read_text() == "third\n"
    assert (tmp_path / "log.1").read_text() == "second\n"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("processes")
def test_a_server_that_never_answers_is_not_waited_for_without_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    marker = f"marker={tmp_path}"
    code = "import time; time.sleep(60)"
    with pytest.raises(ServerStartError, match="does not answer after 0 s: it printed nothing"):
        start_server("S", python(code, marker), lambda: False, cwd=tmp_path, log=log, seconds=0.2)
    left = find_server(marker)
    assert left is not None
    stop(left, (signal.SIGTERM, 10))
    assert find_server(marker) is None


@pytest.mark.usefixtures("processes")
def test_a_server_whose_start_is_cancelled_is_killed(tmp_path: Path) -> None:
    marker = f"marker={tmp_path}"
    cancelled = Event()

    def cancel() -> bool:
        assert find_server(marker) is not None
        cancelled.set()
        return False

    with pytest.raises(ServerStartError, match="the start of S was cancelled"):
        start_server(
            "S",
            python("import time; time.sleep(60)", marker),
            cancel,
            cwd=tmp_path,
            log=tmp_path / "log",
            cancelled=cancelled,
        )
    left = find_server(marker)
    assert left is None or left.wait(timeout=10) is None


@pytest.mark.usefixtures("processes")
def test_a_server_gets_no_secret_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTODON_ACCESS_TOKEN", "hush")
    log = tmp_path / "log"
    run_tool("env", python("import os; print(os.environ)"), cwd=tmp_path, log=log)
    assert "PATH" in log.read_text()
    assert "hush" not in log.read_text()


@pytest.mark.usefixtures("processes")
def test_a_tool_that_fails_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=r"\Atool failed \(status 7\): it printed nothing"):
        run_tool("tool", python("raise SystemExit(7)"), cwd=tmp_path, log=tmp_path / "log")


@pytest.mark.usefixtures("processes")
def test_what_ignores_the_first_signal_gets_the_next(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(python(code), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stop(psutil.Process(process.pid), (signal.SIGTERM, 0.3), (signal.SIGKILL, 10))
        assert not psutil.pid_exists(process.pid)


@pytest.mark.usefixtures("processes")
def test_a_process_that_got_the_number_of_one_that_is_gone_is_not_stopped() -> None:
    with subprocess.Popen(python("import time; time.sleep(60)")) as process:
        other = psutil.Process(process.pid)
        # As if the process that we knew had been started at another time.
        other._ident = (process.pid, 1.0)
        stop(other, (signal.SIGKILL, 1))
        assert process.poll() is None
        process.kill()


def test_the_decisive_line_is_the_last_failure_and_no_stack_frame(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "INFO starting\nFATAL Exiting: java.net.BindException: Address already in use\n"
        "\tat kafka.Error.boom(Error.java:1)\nINFO bye\n"
    )
    assert last_error_line(log).startswith("FATAL Exiting")
    log.write_text("one\ntwo\n\n")
    assert last_error_line(log) == "two"
    assert last_error_line(tmp_path / "absent") == ""


def test_a_file_is_the_old_one_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def crash(*_arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_state_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(StateFolderError, match=r"cannot use .* set MASTODON_ASSETS_HOME"):
        make_private_folder(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateFolderError, match="belongs to another user"):
        make_private_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755
