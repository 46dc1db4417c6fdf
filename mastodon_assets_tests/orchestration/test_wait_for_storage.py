"""Processes of Dagster wait until another has created the tables."""

import logging
import threading
from urllib.parse import urlsplit

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.orchestration.wait_for_storage import wait_for_storage


def test_the_wait_ends_when_the_tables_are_there(
    fresh_database_url: SecretStr, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place = urlsplit(fresh_database_url.get_secret_value())
    variables = {
        "DAGSTER_POSTGRES_HOST": str(place.hostname),
        "DAGSTER_POSTGRES_PORT": str(place.port),
        "DAGSTER_POSTGRES_USER": str(place.username),
        "DAGSTER_POSTGRES_PASSWORD": str(place.password),
        "DAGSTER_POSTGRES_DB": "not_created_yet",
    }
    waiting = threading.Thread(target=wait_for_storage, args=(variables, 0.01), daemon=True)
    waiting.start()
    _wait_for(caplog, "does not exist")
    variables["DAGSTER_POSTGRES_DB"] = place.path[1:]
    _wait_for(caplog, "event_logs, jobs, runs not there; does `prepare` run?")
    with psycopg.connect(fresh_database_url.get_secret_value(), autocommit=True) as connection:
        for table in ("runs", "jobs"):
            connection.execute(f"CREATE TABLE {table} ()")
        _wait_for(caplog, "tables: event_logs not there")
        assert waiting.is_alive()
        connection.execute("CREATE TABLE event_logs ()")
    waiting.join(60)
    assert not waiting.is_alive()


def _wait_for(caplog: pytest.LogCaptureFixture, text: str) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if any(text in line for line in caplog.messages):
            return
        pause.wait(0.01)
    pytest.fail(f"not logged: {text}; but {caplog.messages}")
