"""Commands that start, stop and watch the platform on this machine."""

import json
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets_tests.support.commands import Commands

PASSWORD = "s3cr3t"


def test_a_demo_of_a_missing_file_touches_nothing(folder: Path, commands: Commands) -> None:
    commands.failure(1, "demo", "--from", "missing.ndjson")
    assert list(folder.iterdir()) == []


def leave_connection(folder: Path) -> None:
    """The state folder as `down` leaves it: addresses at which nothing listens."""
    home = folder / ".mastodon_assets"
    home.mkdir()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"postgresql://mastodon:{PASSWORD}@127.0.0.1:{port}/mastodon"
    text = json.dumps({"kafka_bootstrap_servers": f"127.0.0.1:{port}", "postgres_url": url})
    (home / "connection.json").write_text(text)


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("command", ["ingest", "stream", "dashboard"])
def test_after_down_a_command_says_how_to_start_the_stack(
    command: str, folder: Path, commands: Commands
) -> None:
    leave_connection(folder)
    reported = commands.failure(1, command)
    assert reported.startswith("no connection to PostgreSQL (")
    assert "run: mastodon-assets up" in reported
    assert PASSWORD not in reported


def test_in_an_empty_folder_nothing_runs_and_nothing_is_made(
    folder: Path, commands: Commands
) -> None:
    for arguments, expected in (
        (["status"], 1),
        (["status", "--json"], 1),
        (["down"], 0),
        (["down", "--wipe"], 0),
    ):
        ended = commands(*arguments)
        assert (ended.status, ended.err) == (expected, "")
        # It may be the wrong folder.
        assert str(folder / ".mastodon_assets") in ended.out
        assert list(folder.iterdir()) == []


def test_the_status_in_an_empty_folder_says_what_to_do(folder: Path, commands: Commands) -> None:
    lines = [" ".join(line.split()) for line in commands("status").out.splitlines()]
    assert lines == [
        f"state folder {folder}/.mastodon_assets",
        "Kafka stopped not running",
        "PostgreSQL stopped not running",
        "no PostgreSQL is known; run: mastodon-assets up, in the folder of your data (or set"
        " DATABASE_URL)",
    ]


@pytest.mark.usefixtures("loopback")
def test_the_status_after_down_says_what_to_do_without_the_password(
    folder: Path, commands: Commands
) -> None:
    leave_connection(folder)
    shown = commands("status")
    assert shown.status == 1
    assert "run: mastodon-assets up" in shown.out
    assert PASSWORD not in shown.out + shown.err
    reported = json.loads(commands("status", "--json").out)
    assert [service["state"] for service in reported["services"]] == ["stopped", "stopped"]
    assert reported["pipeline"] is None
    assert "run: mastodon-assets up" in reported["problem"]


def test_the_status_says_nothing_of_a_stack_where_both_servers_are_ones_own(
    settings: Settings, commands: Commands
) -> None:
    ended = commands(
        "status",
        "--json",
        **as_environment(settings),
    )
    assert json.loads(ended.out)["services"] == []
    assert ended.status == 0


def test_while_messages_wait_the_status_counts_them_and_no_chart_is_current(
    settings: Settings, produce: Callable[..., None], commands: Commands
) -> None:
    produce([b"garbage"] * 3)
    reported = json.loads(commands("status", "--json", **as_environment(settings)).out)
    assert reported["problem"] is None
    assert reported["pipeline"] == {
        "messages_in_kafka": 3,
        "messages_ahead_of_tables": 3,
        "charts_are_current": False,
        "champion": "none",
        "posts_kept_since": "always",
        "deletes_of_unknown_posts": 0,
    }
    assert reported["disk"]["sizes"]["postgresql"] > 0
    shown = commands("status", **as_environment(settings)).out
    assert re.search(r"messages ahead of tables +3 *\n", shown)
    assert re.search(r"charts are current +no *\n", shown)
    assert re.search(r"disk +.*postgresql [0-9,]+ MiB", shown)


@pytest.mark.usefixtures("loopback")
def test_a_taken_port_is_refused_before_the_web_page_starts(commands: Commands) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert commands.failure(2, "ui", "--port", str(port)).startswith(f"port {port} is taken")
        refused = commands.failure(2, "run", DASHBOARD_PORT=str(port))
        assert refused == (
            f"port {port} is taken; stop what listens there or choose another with DASHBOARD_PORT"
        )
        assert commands.failure(1, "simulate", "--port", str(port)).startswith(
            "cannot listen on 127.0.0.1"
        )


def _refused_wipe(commands: Commands) -> str:
    """What a wipe says before it asks; without an answer it removes nothing."""
    asked = commands("down", "--wipe")
    assert asked.status != 0
    assert "This removes for good:" in asked.err
    return asked.err


def _keep_the_list_across_a_wipe(home: Path, commands: Commands) -> None:
    """From a stopped stack to a running one with the same list and no other data."""
    key = (home / "withdrawn.key").read_text()
    assert commands("up").status == 0
    assert commands("purge", "--account", "ada@one.example", "--yes").status == 0
    assert commands("down").status == 0
    kept = commands("down", "--wipe", "--keep-list", "--yes")
    assert kept.status == 0, kept.err
    assert "1 entries of the suppression list and its key are kept" in kept.out
    assert {path.name for path in home.iterdir()} == {"withdrawn.key", "suppression-list.jsonl"}
    again = commands("up")
    assert again.status == 0, again.err
    assert "1 entries of the kept suppression list added" in again.out
    assert (home / "withdrawn.key").read_text() == key
    assert not (home / "suppression-list.jsonl").exists()
    assert len(json.loads(commands("purge", "--list", "--json").out)) == 1


@pytest.mark.usefixtures("own_servers")
def test_the_stack_comes_up_goes_down_and_is_wiped(folder: Path, commands: Commands) -> None:
    home = folder / ".mastodon_assets"
    try:
        first = commands("up")
        assert first.status == 0, first.err
        connection = json.loads((home / "connection.json").read_text())
        password = str(conninfo_to_dict(connection["postgres_url"])["password"])
        assert connection["kafka_bootstrap_servers"] in first.out
        assert password not in first.out + first.err
        again = commands("up")
        assert (again.status, again.out) == (0, first.out)
        running = json.loads(commands("status", "--json").out)
        assert [service["state"] for service in running["services"]] == ["running", "running"]
        assert running["problem"] is None
        assert commands.failure(2, "demo").startswith(
            f"MASTODON_ASSETS_HOME={home} contains something"
        )
        assert "suppression list" in _refused_wipe(commands)
        with psycopg.connect(connection["postgres_url"]):
            reported = commands.failure(1, "down", "--wipe", "--yes")
            assert f"is in use by process {os.getpid()}" in reported
        assert commands("status").status == 0
        # `down` ends the connection.
        with suppress(psycopg.OperationalError), psycopg.connect(connection["postgres_url"]):
            stopped = commands("down")
        assert stopped.status == 0, stopped.err
        assert f"was in use by process {os.getpid()}" in stopped.err
        assert (home / "connection.json").exists()
        assert commands.failure(1, "stream").startswith("no connection to PostgreSQL")
        _keep_the_list_across_a_wipe(home, commands)
    finally:
        wiped = commands("down", "--wipe", "--yes")
    assert wiped.status == 0, wiped.err
    assert list(home.iterdir()) == []
