"""Server-sent events over a real connection, and what a failing database does to the page."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support import dashboard as rows

_SECONDS = 60


@dataclass
class Stream:
    """The events of a stream, one after the other."""

    lines: Iterator[str]
    last_id: str = ""
    sections: dict[str, str] = field(default_factory=dict)

    def next_state(self) -> dict[str, Any]:
        """Read up to the end of the next update; keep its sections."""
        self.sections = {}
        event = ""
        for line in self.lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name == "event":
                event = value
            elif name == "data" and event == "section":
                section = json.loads(value)
                self.sections[section["name"]] = section["html"]
            elif name == "data" and event == "state":
                state: dict[str, Any] = json.loads(value)
                return state
        raise AssertionError("the stream ended")


@pytest.fixture(scope="module")
def dashboard(database_url: SecretStr, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with transaction(database_url) as connection:
        rows.fill(connection)
    folder = tmp_path_factory.mktemp("events")
    settings = load_settings(database_url=database_url, mastodon_assets_home=folder)
    with rows.served(settings) as url:
        yield url


def test_a_commit_reaches_all_viewers_as_the_sections_that_changed_and_only_those(
    dashboard: str, database_url: SecretStr
) -> None:
    with httpx.Client(base_url=dashboard, timeout=_SECONDS) as client:
        seen = client.get("/").text.partition('data-seen="')[2].partition('"')[0]
        with (
            client.stream("GET", f"/events?seen={seen}&period=1h") as first,
            client.stream("GET", f"/events?seen={seen}&period=1h") as second,
        ):
            assert first.headers["content-type"].startswith("text/event-stream")
            assert first.headers["cache-control"] == "no-store"
            streams = [Stream(first.iter_lines()), Stream(second.iter_lines())]
            with transaction(database_url) as connection:
                rows.add_minute(connection, _now(), {"en": 500})
                rows.change(connection)
            for stream in streams:
                # A minute may begin meanwhile, which also is an update.
                while _posts_of_the_hour(stream) < 500:
                    assert stream.next_state()["problem"] is None
                    assert "model" not in stream.sections
        number = streams[0].last_id
        assert number.partition(".")[0] == seen.partition(".")[0]
        # Whoever comes back gets what was missed, whoever is of another process everything.
        with transaction(database_url) as connection:
            connection.execute("UPDATE masto.sentiment_models SET status_reason = 'better'")
            connection.execute("UPDATE masto.sentiment_models SET promoted_at = now()")
        headers = {"Last-Event-ID": number}
        with client.stream("GET", "/events?seen=&period=1h", headers=headers) as back:
            stream = Stream(back.iter_lines())
            while "model" not in stream.sections:
                stream.next_state()
            assert "sources" not in stream.sections
        for strange in ("", "0000.5", f"{seen.partition('.')[0]}.x", "." * 100):
            with client.stream("GET", "/events", params={"seen": strange}) as new:
                stream = Stream(new.iter_lines())
                stream.next_state()
                assert {"figures", "posts", "languages", "model"} <= set(stream.sections)


def _posts_of_the_hour(stream: Stream) -> int:
    found = re.search(r'<strong dir="auto">(\d+)<', stream.sections.get("figures", ""))
    return int(found[1]) if found else 0


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_while_the_database_is_away_the_page_says_so_keeps_its_numbers_and_recovers(
    stack: embedded.Connection, dashboard: str, database_url: SecretStr
) -> None:
    with httpx.Client(base_url=dashboard, timeout=_SECONDS) as client:
        assert client.get("/health").status_code == 200
        assert 'id="trends"' in client.get("/?period=24h").text
        name = sql.Identifier(str(conninfo_to_dict(database_url.get_secret_value())["dbname"]))
        with (
            psycopg.connect(stack.postgres_url, autocommit=True) as admin,
            client.stream("GET", "/events?period=24h") as events,
        ):
            stream = Stream(events.iter_lines())
            stream.next_state()
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            try:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = %s AND pid <> pg_backend_pid()",
                    (conninfo_to_dict(database_url.get_secret_value())["dbname"],),
                )
                while (state := stream.next_state())["problem"] is None:
                    pass
                assert state["problem"].startswith("Database not reachable since ")
                assert client.get("/health").status_code == 503
                page = client.get("/?period=24h").text
                assert "Database not reachable since " in page
                # What was read before is still there; what was never read says why it is not.
                assert "#tea" in page
                assert "Database not reachable. The log" in client.get("/?period=365d").text
                refused = client.get("/views/week.json?period=365d")
                assert refused.status_code == 503
                assert refused.text == "Database not reachable. The log of the dashboard says why."
            finally:
                admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
            while (state := stream.next_state())["problem"] is not None:
                pass
            while "languages" not in stream.sections:
                stream.next_state()
        assert client.get("/health").status_code == 200
        assert "Database not reachable" not in client.get("/?period=365d").text


def test_viewers_are_bounded_and_a_missing_table_is_said_in_its_section(
    dashboard: str,
    fresh_database_url: SecretStr,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mastodon_assets.dashboard.events.MOST_VIEWERS", 0)
    refused = httpx.get(f"{dashboard}/events", timeout=_SECONDS)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
    with transaction(fresh_database_url) as connection:
        rows.fill(connection)
        connection.execute("DROP VIEW masto.v_hashtag_trends")
    settings = load_settings(database_url=fresh_database_url, mastodon_assets_home=tmp_path)
    with rows.served(settings) as url:
        page = httpx.get(url, timeout=_SECONDS).text
        assert "run: mastodon-assets migrate" in page
        assert page.count("run: mastodon-assets migrate") == 1
    assert threading.active_count() < 50
