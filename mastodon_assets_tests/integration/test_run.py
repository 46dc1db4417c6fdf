"""The live mode for real: ingester, stream and web page, killed and ended."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.simulator.server import SimulatorServer, running, synthetic_source
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.commands import PROGRAM, logged
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.records import upsert
from mastodon_assets_tests.support.web_server import wait_until_up

_SECONDS = 240
_POSTS = 20
_BROKEN = "broken.example"


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with running(synthetic_source(toots=_POSTS, days=1, seed=1)) as served:
        yield served


def _wait_until(is_so: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


def _rows(settings: Settings) -> int:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        row = connection.execute("SELECT count(*) FROM masto.toots_raw").fetchone()
    return row[0] if row else 0


def _set_state(settings: Settings, state: str) -> None:
    """Let a source that no ingester reads be in a state."""
    with transaction(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.ingest_sources (instance, source, state) VALUES (%s, 'public', %s)"
            " ON CONFLICT (instance, source) DO UPDATE SET state = excluded.state",
            (_BROKEN, state),
        )


def _alerts(file: Path) -> list[str]:
    """The messages about it, by their first word."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    texts = "\n".join(json.loads(line)["text"] for line in lines).splitlines()
    return [text.partition(":")[0] for text in texts if _BROKEN in text]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.usefixtures("own_servers")
def test_posts_reach_the_tables_and_alerts_their_file_also_after_every_process_was_killed(
    settings: Settings, server: SimulatorServer, produce: Callable[..., None], tmp_path: Path
) -> None:
    create_topics(settings.kafka_access, [settings.kafka_errors_topic])
    port, log, alerts = free_port(), tmp_path / "run.log", tmp_path / "alerts.jsonl"
    dashboard = f"http://127.0.0.1:{(dashboard_port := free_port())}/health"
    environment = {
        **os.environ,
        **as_environment(settings),
        "MASTODON_API_BASE_URL": server.base_url,
        "MASTODON_ACCESS_TOKEN": server.token,
        "DAGSTER_HOME": str(tmp_path / "runs"),
        "ALERT_FILE": str(alerts),
        "ALERT_CLEAR_SECONDS": "0",
        "DASHBOARD_PORT": str(dashboard_port),
    }
    _set_state(settings, "refused")
    command = [*PROGRAM, "run", "--port", str(port)]
    with logged(command, tmp_path, environment, log) as process:
        wait_until_up(f"http://127.0.0.1:{port}", process, log)
        produce([upsert("1", uri="https://other.example/1")])
        _wait_until(lambda: _rows(settings) >= 1, log)
        _wait_until(lambda: bool(_alerts(alerts)), log)
        before = psutil.Process(process.pid).children()
        assert len(before) == 5
        for child in before:
            child.kill()
        _set_state(settings, "stopped")
        produce([upsert("2", uri="https://other.example/2")])
        _wait_until(lambda: _rows(settings) >= 2, log)
        wait_until_up(f"http://127.0.0.1:{port}", process, log)
        _wait_until(lambda: _answers(dashboard), log)
        _wait_until(lambda: "OVER" in _alerts(alerts), log)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 130
    assert psutil.wait_procs(children, timeout=5)[1] == []
    assert _alerts(alerts) == ["PROBLEM", "OVER"]
    lines = log.read_text().splitlines()
    assert "Traceback" not in log.read_text()
    names = {
        name
        for line in lines
        for name in ("ingest", "stream", "web", "daemon", "dashboard")
        if line.startswith(name)
    }
    assert names == {"ingest", "stream", "web", "daemon", "dashboard"}
