"""The command: its port, its end, and what it says if it cannot start."""

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import as_environment, load_settings
from mastodon_assets.dashboard.server import DashboardPortError, serve
from mastodon_assets.errors import SettingsError
from mastodon_assets_tests.support.commands import PROGRAM, logged
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.web_server import wait_until_up


def test_it_serves_metrics_to_this_machine_and_ends_at_a_signal_although_somebody_watches(
    database_url: SecretStr, tmp_path: Path
) -> None:
    settings = load_settings(database_url=database_url, mastodon_assets_home=tmp_path)
    port, log = free_port(), tmp_path / "log"
    command = [*PROGRAM, "dashboard", "--port", str(port)]
    environment = {**os.environ, **as_environment(settings)}
    url = f"http://127.0.0.1:{port}"
    with logged(command, tmp_path, environment, log) as process:
        wait_until_up(url, process, log, path="/health")
        served = httpx.get(f"{url}/metrics", timeout=60)
        assert served.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "mastodon_assets_database_up 1.0\n" in served.text
        assert "mastodon_assets_open_gaps 0.0\n" in served.text
        forwarded = httpx.get(f"{url}/metrics", headers={"X-Forwarded-For": "192.0.2.1"})
        assert forwarded.status_code == 404
        with httpx.stream("GET", f"{url}/events", timeout=60) as events:
            lines = events.iter_lines()
            assert next(lines).startswith("retry: ")
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert process.returncode == 130
    assert "Traceback" not in log.read_text()
    assert f"the dashboard is at {url}; Ctrl-C ends it" in log.read_text()


def test_a_taken_port_and_an_unknown_database_are_one_line_that_says_what_to_do(
    database_url: SecretStr, tmp_path: Path
) -> None:
    settings = load_settings(database_url=database_url, mastodon_assets_home=tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DashboardPortError, match=f":{port} .*; .*--port or DASHBOARD_PORT"):
            serve(settings, port)
    with pytest.raises(SettingsError, match="no PostgreSQL is known; run: mastodon-assets up"):
        serve(load_settings(mastodon_assets_home=tmp_path / "none"), free_port())
