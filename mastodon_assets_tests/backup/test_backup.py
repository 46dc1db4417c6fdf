import json
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster import SkipReason, build_schedule_context
from pydantic import SecretStr
from typer.testing import CliRunner

from mastodon_assets.backup.history import HistoryError, restore_history
from mastodon_assets.backup.restore import check_restorable, restore
from mastodon_assets.backup.save import (
    FORMAT,
    MANIFEST,
    BackupError,
    find_backups,
    make_backup,
    read_backup,
    remove_old_backups,
)
from mastodon_assets.cli.app import app
from mastodon_assets.config.settings import Settings, as_environment, local_path
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.errors import SettingsError
from mastodon_assets.operations.purge import account, entries, purge
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.schedules import backup_schedule
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.dump import DumpError, dump_schema
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.tables import TOOTS_RAW
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.merge_sink import opened_sink
from mastodon_assets_tests.support.records import TOPIC, delete, upsert

KEY = SecretStr("a key for tests only")
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def say(line: str) -> None:
    """Drop the lines on the progress."""


def never() -> Path:
    """Say that a backup without Dagster's history asks for no folder of Dagster."""
    raise AssertionError


def messages(count: int) -> list[Any]:
    """Posts of two accounts; each fourth one is edited or deleted later."""
    made: list[Any] = []
    for number in range(count):
        name = ("ada", "bob")[number % 2]
        made.append(
            upsert(
                str(number),
                uri=f"https://one.example/users/{name}/statuses/{number}",
                username=f"{name}@one.example",
                hashtags=["news", f"tag{number % 5}"],
            )
        )
        if number % 8 == 4:
            made.append(delete(str(number - 1)))
    return made


@pytest.fixture
def platform(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(
        update={
            "kafka_topic": TOPIC,
            "withdrawn_key": KEY,
            "backup_dir": tmp_path / "backups",
            "mastodon_access_token": SecretStr("a token that nobody may read"),
        }
    )


@pytest.fixture
def target(platform: Settings) -> Path:
    assert platform.backup_dir is not None
    return platform.backup_dir


@pytest.fixture
def other(platform: Settings, stack: embedded.Connection, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a new machine: an empty database, another state folder and model folder."""
    with new_database(stack) as url:
        yield platform.model_copy(
            update={
                "database_url": url,
                "mastodon_assets_home": tmp_path / "new",
                "model_dir": tmp_path / "new models",
            }
        )


def fill(settings: Settings, made: list[Any], first: int = 0) -> dict[str, list[Any]]:
    """Write messages in small batches; return the tables."""
    with opened_sink(settings.postgres_url) as sink:
        sink.next[0] = first
        for start in range(0, len(made), 10):
            sink.write(*made[start : start + 10])
        return sink.tables()


def test_a_backup_under_load_restored_and_read_on_gives_the_tables_of_an_undisturbed_run(
    platform: Settings, other: Settings, target: Path
) -> None:
    made = messages(400)
    fill(platform, made[:100])
    done: dict[str, list[Any]] = {}
    writer = threading.Thread(target=lambda: done.update(fill(platform, made[100:], first=100)))
    writer.start()
    backup = make_backup(platform, target, say)
    writer.join(120)
    next_offset = backup.manifest["ledger"][TOPIC]["next_offsets"]["0"]
    assert 100 <= next_offset <= len(made)

    result = restore(other, backup.folder, say, dagster_home=never)

    assert result.rows == backup.manifest["rows"]
    (note,) = result.notes
    assert "the topic was created again" in note
    tables = fill(other, made[next_offset:], first=next_offset)
    assert tables == done


def test_whoever_is_purged_after_the_backup_is_removed_again(
    platform: Settings, other: Settings, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mastodon_assets.operations.purge.remove_errors", lambda *a, **k: 0)
    monkeypatch.setattr(
        "mastodon_assets.operations.purge._delete_stored_messages", lambda *a, **k: 0
    )
    fill(platform, messages(20))
    backup = make_backup(platform, target, say)
    purge(platform, account("bob@one.example"))

    result = restore(other, backup.folder, say, dagster_home=never)

    assert result.removed["toots_raw"] > 0
    with transaction(other.postgres_url, snapshot=True) as connection:
        names = connection.execute("SELECT DISTINCT username FROM masto.toots_raw").fetchall()
    assert names == [("ada@one.example",)]
    assert len(entries(other)) == 1


def test_the_lists_key_is_restored_to_a_state_folder_that_does_not_exist_yet(
    platform: Settings, other: Settings, target: Path
) -> None:
    generated = platform.model_copy(update={"withdrawn_key": None})
    generated.mastodon_assets_home.mkdir()
    (generated.mastodon_assets_home / "withdrawn.key").write_text("0123456789abcdef")
    backup = make_backup(generated, target, say)

    restore(
        other.model_copy(update={"withdrawn_key": None}), backup.folder, say, dagster_home=never
    )

    assert (other.mastodon_assets_home / "withdrawn.key").read_text() == "0123456789abcdef\n"


def test_a_backup_is_private_and_has_no_secret_but_the_lists_key(
    platform: Settings, target: Path
) -> None:
    platform.mastodon_assets_home.mkdir()
    (platform.mastodon_assets_home / "withdrawn.key").write_text("0123456789abcdef")
    fill(platform, messages(5))

    backup = make_backup(platform, target, say)

    content = b"".join(path.read_bytes() for path in backup.folder.rglob("*") if path.is_file())
    password = str(psycopg.conninfo.conninfo_to_dict(url_of(platform))["password"])
    for secret in (password, "a token that nobody may read", KEY.get_secret_value()):
        assert secret.encode() not in content
    assert (backup.folder / "withdrawn.key").read_text() == "0123456789abcdef"
    assert f"BACKUP_DIR={target}\n" in (backup.folder / "settings.env").read_text()
    assert stat.S_IMODE(backup.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in backup.folder.iterdir() if p.is_file()} == {
        0o600
    }


def url_of(settings: Settings) -> str:
    return settings.postgres_url.get_secret_value()


@pytest.mark.parametrize("scheme", ["", "file://"], ids=["path", "as in containers"])
def test_models_that_were_champions_are_restored_to_the_model_folder(
    platform: Settings, other: Settings, target: Path, tmp_path: Path, scheme: str
) -> None:
    other = other.model_copy(update={"model_dir": f"{scheme}{other.model_dir}"})
    for version, promoted_at in {"first": NOW, "second": NOW, "lost": NOW, "never": None}.items():
        folder = tmp_path / "trained" / version
        if version != "lost":
            folder.mkdir(parents=True)
            (folder / "weights").write_text(version)
        with transaction(platform.postgres_url) as connection:
            connection.execute(
                "INSERT INTO masto.sentiment_models (version, trained_at, metrics, corpus, status,"
                " promoted_at, path) VALUES (%s, now(), '{}', 'c', 'retired', %s, %s)",
                (version, promoted_at, f"{scheme}{folder}"),
            )
    lines: list[str] = []

    backup = make_backup(platform, target, lines.append)
    result = restore(other, backup.folder, say, dagster_home=never)

    assert sorted(result.models) == ["first", "second"]
    assert any("lost" in line for line in lines)
    assert result.notes[0].startswith("models without a folder: lost;")
    with transaction(other.postgres_url, snapshot=True) as connection:
        paths = dict(
            connection.execute("SELECT version, path FROM masto.sentiment_models").fetchall()
        )
    assert paths["first"] == f"{other.model_dir}/first"
    restored = local_path(paths["first"])
    assert restored is not None
    assert (restored / "weights").read_text() == "first"


def test_dagsters_history_is_saved_on_demand_while_it_is_written_and_put_back_once(
    platform: Settings, other: Settings, target: Path, tmp_path: Path
) -> None:
    home, new = tmp_path / "dagster", tmp_path / "new dagster"
    with pytest.raises(HistoryError, match="there is no history of Dagster"):
        make_backup(platform, target, say, dagster_home=home)
    assert list(target.iterdir()) == []
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        run = instance.create_run_for_job(a_job)
        run_id = run.run_id
        instance.report_engine_event("looked at", run)
        # A writer in the middle of its transaction.
        with sqlite3.connect(home / "history" / "runs.db") as runs:
            runs.execute("UPDATE runs SET status = 'unfinished'")
            backup = make_backup(platform, target, say, dagster_home=home)
            runs.rollback()

    assert backup.manifest["history"] is True
    assert {"dagster/history/runs.db", f"dagster/history/runs/{run_id}.db"} <= set(
        backup.manifest["files"]
    )
    new.mkdir()
    result = restore(other, backup.folder, say, dagster_home=lambda: new)

    assert not any("Dagster" in note for note in result.notes)
    with dg.DagsterInstance.local_temp(str(new)) as instance:
        (run,) = instance.get_runs()
        assert (run.run_id, run.status) == (run_id, dg.DagsterRunStatus.NOT_STARTED)
        assert [each.message for each in instance.all_logs(run_id)] == ["looked at"]
    assert not restore_history(backup.folder, new)


@dg.job
def a_job() -> None:
    """Do nothing."""


def test_a_backup_is_tested_in_a_database_that_is_removed_again(
    platform: Settings, target: Path
) -> None:
    fill(platform, messages(20))
    backup = make_backup(platform, target, say)
    with psycopg.connect(url_of(platform), autocommit=True) as connection:
        connection.execute("CREATE DATABASE masto_restore_0123abcd")

    check_restorable(platform, backup, say)

    with transaction(platform.postgres_url, snapshot=True) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_database WHERE datname LIKE 'masto_restore%'"
        ).fetchone()
    assert left == (0,)
    (backup.folder / "database.dump").write_bytes(b"damaged")
    with pytest.raises(BackupError, match="missing or damaged"):
        check_restorable(platform, backup, say)


def test_restore_refuses_what_would_lose_something(
    platform: Settings, other: Settings, target: Path
) -> None:
    fill(platform, messages(5))
    backup = make_backup(platform, target, say)

    with pytest.raises(BackupError, match="the database has data already"):
        restore(platform, backup.folder, say, dagster_home=never)
    with (
        psycopg.connect(url_of(other)),
        pytest.raises(BackupError, match=r"in use \(connections: 1\)"),
    ):
        restore(other, backup.folder, say, dagster_home=never)
    with pytest.raises(BackupError, match="is no complete backup"):
        restore(other, target, say, dagster_home=never)
    change(backup.folder, schema_version="9999")
    with pytest.raises(BackupError, match="upgrade mastodon-assets"):
        restore(other, backup.folder, say, dagster_home=never)
    change(backup.folder, schema_version="0001", key_fingerprints=["of another key"])
    with pytest.raises(SettingsError, match="made with another key"):
        restore(other, backup.folder, say, dagster_home=never)
    with transaction(other.postgres_url, snapshot=True) as connection:
        assert count_rows(connection, TOOTS_RAW) == 0


def change(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **values}))


def test_old_backups_go_but_never_the_newest(tmp_path: Path) -> None:
    for days in (1, 20, 30):
        write_manifest(tmp_path / f"{days} days old", NOW - timedelta(days=days))
    write_manifest(tmp_path / "unreadable", NOW)
    (tmp_path / "unreadable" / MANIFEST).write_text("{")
    for name, days_ago in {".partial-of-now": 0, ".partial-of-a-killed-process": 3}.items():
        (tmp_path / name).mkdir()
        at = (NOW - timedelta(days=days_ago)).timestamp()
        os.utime(tmp_path / name, (at, at))

    removed = remove_old_backups(tmp_path, 14, NOW)

    assert sorted(path.name for path in removed) == ["20 days old", "30 days old"]
    assert [each.folder.name for each in find_backups(tmp_path)] == ["1 days old"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("1 days old", "unreadable", ".partial-of-now")
    }
    assert remove_old_backups(tmp_path, 14, NOW + timedelta(days=300)) == []
    assert (tmp_path / "unreadable").exists()
    with pytest.raises(BackupError, match="cannot be read; choose another backup"):
        read_backup(tmp_path / "unreadable")


def write_manifest(folder: Path, made_at: datetime) -> None:
    folder.mkdir()
    manifest = {
        "format": FORMAT,
        "made_at": made_at.isoformat(),
        "rows": {"toots_raw": 3},
        "schema_version": "0001",
        "models": [],
        "files": {},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_the_schedule_requests_a_backup_if_the_newest_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, backups = tmp_path / "history", tmp_path / "backups"
    history.mkdir()
    backups.mkdir()

    def ask(*runs: dg.DagsterRun) -> Any:
        with dg.DagsterInstance.local_temp(str(history)) as instance:
            for run in runs:
                instance.run_storage.add_run(run)
            with build_schedule_context(
                instance=instance, resources={"settings": SettingsResource()}
            ) as context:
                return backup_schedule(context)

    assert "set BACKUP_DIR" in ask().skip_message
    monkeypatch.setenv("BACKUP_EVERY_HOURS", "24")
    assert "no folder for backups" in ask().skip_message
    monkeypatch.setenv("BACKUP_DIR", str(backups))
    write_manifest(backups / "old", datetime.now(UTC) - timedelta(hours=24))
    assert not isinstance(ask(), SkipReason)
    # A backup that takes hours must not get company.
    run = dg.DagsterRun(job_name="backup_job", status=dg.DagsterRunStatus.STARTED)
    assert ask(run).skip_message == "a run of backup_job waits or is at work"
    write_manifest(backups / "new", datetime.now(UTC) - timedelta(hours=23))
    assert "the newest backup is of" in ask().skip_message


def test_the_commands_say_what_was_saved_and_restored(
    platform: Settings, other: Settings, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(platform, messages(5))
    made = command(platform, monkeypatch, "backup", "--check")
    assert "posts 4, models 0" in made
    listed = json.loads(command(platform, monkeypatch, "backup", "--list", "--json"))
    assert [each["rows"]["toots_raw"] for each in listed] == [4]

    shown = command(other, monkeypatch, "restore", listed[0]["folder"])

    assert "4  toots_raw" in shown
    assert "restored; next: mastodon-assets run" in shown


def command(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_missing_program_is_one_line_that_says_what_to_install(
    platform: Settings, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mastodon_assets.warehouse.dump.package_folder", lambda: None)
    monkeypatch.setitem(os.environ, "PATH", "")

    with pytest.raises(DumpError, match="pg_dump was not found; install"):
        make_backup(platform, target, say)

    assert list(target.iterdir()) == []


def test_a_server_that_demands_tls_is_dumped_by_the_machines_own_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: None
) -> None:
    """The package's programs know no TLS."""
    url = SecretStr("postgresql://me:secret@db.example/mastodon?sslmode=verify-full")
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    with pytest.raises(DumpError, match=r"demands TLS, and pg_dump .* install PostgreSQL's client"):
        dump_schema(url, "snapshot", tmp_path / "dump", say)
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\necho "mode $PGSSLMODE" >&2\nexit 1\n')
    program.chmod(0o755)
    with pytest.raises(DumpError, match="pg_dump failed: mode verify-full"):
        dump_schema(url, "snapshot", tmp_path / "dump", say)
