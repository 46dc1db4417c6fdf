"""Ctrl-C, SIGTERM and a closed terminal end each command without a traceback."""

import json
import re
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen

import httpx
import pytest

from mastodon_assets.cli import app as app_module
from mastodon_assets.cli.interrupts import INTERRUPTED
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets_tests.support.commands import (
    Commands,
    read_until,
    started,
    started_by_nohup,
    started_in_background,
)

pytestmark = pytest.mark.usefixtures("processes")

Start = Callable[..., AbstractContextManager["Popen[str]"]]

_ENDS = [
    pytest.param(sent, start, id=f"{start.__name__}-{sent.name}")
    for start in (started, started_in_background)
    for sent in (signal.SIGINT, signal.SIGTERM)
]
_CLOSED_TERMINAL = pytest.param(signal.SIGHUP, started, id="closed-terminal")
ended_by = pytest.mark.parametrize(("sent", "start"), _ENDS)
ended_by_any = pytest.mark.parametrize(("sent", "start"), [*_ENDS, _CLOSED_TERMINAL])


@ended_by_any
def test_the_simulator_ends_in_good_order(sent: signal.Signals, start: Start) -> None:
    with start("simulate", "--port", "0", "--toots", "5") as process:
        shown = read_until(process.stdout, "MASTODON_ACCESS_TOKEN=")
        found = re.search(r"(?m)^MASTODON_API_BASE_URL=(http://127\.0\.0\.1:\d+)$", shown)
        assert found
        assert httpx.get(f"{found[1]}/api/v2/instance", timeout=30).status_code == 200
        process.send_signal(sent)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")


def test_what_nohup_started_outlives_its_terminal() -> None:
    with started_by_nohup("simulate", "--port", "0", "--toots", "5") as process:
        shown = read_until(process.stdout, "MASTODON_ACCESS_TOKEN=")
        process.send_signal(signal.SIGHUP)
        found = re.search(r"http://127\.0\.0\.1:\d+", shown)
        assert found
        for _ in range(3):
            assert httpx.get(f"{found[0]}/api/v2/instance", timeout=30).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@ended_by
def test_the_ingester_ends_in_good_order_with_its_counts(
    settings: Settings, sent: signal.Signals, start: Start
) -> None:
    with started("simulate", "--port", "0", "--toots", "5", "--rate", "5") as simulator:
        shown = read_until(simulator.stdout, "MASTODON_ACCESS_TOKEN=")
        server = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        environment = {**as_environment(settings), **server}
        with start("ingest", **environment) as process:
            read_until(process.stderr, "connected")
            process.send_signal(sent)
            out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert re.search(r"received +\d", out)


@ended_by_any
@pytest.mark.parametrize("command", ["status", "prepare"])
def test_a_command_that_waits_for_a_silent_server_ends(
    sent: signal.Signals, start: Start, command: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        place = "{}:{}".format(*silent.getsockname())
        environment = {
            "DATABASE_URL": f"postgresql://u:p@{place}/d",
            "KAFKA_BOOTSTRAP_SERVERS": place,
            "STOP_SECONDS": "2",
        }
        with start(command, **environment) as process:
            # Now it waits for an answer that does not come.
            accepted, _ = silent.accept()
            process.send_signal(sent)
            out, err = process.communicate(timeout=30)
            accepted.close()
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.usefixtures("own_servers")
def test_an_interrupted_up_leaves_no_server_that_is_not_ready(
    folder: Path, commands: Commands
) -> None:
    try:
        with started("up") as process:
            read_until(process.stderr, "starting Kafka")
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        services = json.loads(commands("status", "--json").out)["services"]
        assert "unhealthy" not in {service["state"] for service in services}
    finally:
        assert commands("down", "--wipe", "--yes").status == 0
    assert list((folder / ".mastodon_assets").iterdir()) == []


def test_a_library_that_reports_an_interrupt_as_its_own_error_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr(app_module, "app", interrupted)
    assert app_module.run(["status"]) == INTERRUPTED
