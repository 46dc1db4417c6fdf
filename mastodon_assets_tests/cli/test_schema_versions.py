"""Tables of a newer program, and of an older one, as a person meets them: one line per command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from mastodon_assets.backup.save import make_backup
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.orchestration.assets.stream import ingest_assets
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.schema_version import migrations
from mastodon_assets_tests.support.commands import Commands

NEWER = "the database has schema 0999, which this version does not know; upgrade mastodon-assets"
NEWEST = max(migrations())


def say(line: str) -> None:
    """Drop the lines on the progress."""


def set_version(url: SecretStr, version: str) -> None:
    with transaction(url) as connection:
        connection.execute("UPDATE masto.schema_version SET version_num = %s", (version,))


@pytest.fixture
def environment_of(settings: Settings, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The environment of a program whose tables have another version."""

    def made(version: str) -> dict[str, str]:
        set_version(settings.postgres_url, version)
        return {
            **as_environment(settings),
            "MASTODON_API_BASE_URL": "http://127.0.0.1:9",
            "MASTODON_ACCESS_TOKEN": "t",
            "BACKUP_DIR": str(tmp_path / "backups"),
        }

    return made


def test_a_newer_schema_is_one_line_for_each_command_and_nothing_is_written(
    environment_of: Callable[[str], dict[str, str]], settings: Settings, commands: Commands
) -> None:
    environment = environment_of("0999")
    for arguments in (
        ("ingest",),
        ("stream", "--until-caught-up"),
        ("replay",),
        ("rejected", "replay"),
        ("rebuild", "all"),
        ("migrate",),
        ("prepare",),
    ):
        assert commands.failure(1, *arguments, **environment) == NEWER, arguments
    said = commands.failure(1, "backup", **environment)
    assert "the schema is at version 0999 and this program writes version" in said
    assert said.endswith("start the version that applied the migration")
    findings = json.loads(commands("doctor", "--json", **environment).out)
    (tables,) = (each for each in findings if each["name"] == "tables")
    assert (tables["level"], tables["advice"]) == ("red", "upgrade mastodon-assets")
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert connection.execute("SELECT version_num FROM masto.schema_version").fetchone() == (
            "0999",
        )


@pytest.mark.parametrize("command", ["up", "run"])
def test_a_newer_schema_in_the_embedded_stack_is_one_line(
    command: str,
    settings: Settings,
    stack: embedded.Connection,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    set_version(settings.postgres_url, "0999")
    started = replace(stack, postgres_url=settings.postgres_url.get_secret_value())
    monkeypatch.setattr(embedded, "up", lambda *_arguments, **_options: started)
    home = {"MASTODON_ASSETS_HOME": str(tmp_path / "embedded")}
    server = {"MASTODON_API_BASE_URL": "http://127.0.0.1:9", "DASHBOARD_PORT": "23311"}
    assert commands.failure(1, command, **home, **server) == NEWER


def test_a_newer_schema_fails_an_asset_with_the_same_line(
    settings: Settings, environment: Settings
) -> None:
    set_version(settings.postgres_url, "0999")
    result = dg.materialize(
        [ingest_assets],
        resources={"settings": SettingsResource(), "spark": SparkResource()},
        raise_on_error=False,
    )
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    data: Any = failure.event_specific_data
    assert data.error.cause.message.strip().endswith(NEWER)


def test_a_backup_of_a_newer_schema_is_one_line_and_none_is_restored(
    environment_of: Callable[[str], dict[str, str]],
    settings: Settings,
    commands: Commands,
    tmp_path: Path,
) -> None:
    made = make_backup(settings, tmp_path / "backups", say)
    manifest = json.loads((made.folder / "manifest.json").read_text())
    (made.folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": "0999"}))
    said = commands(
        "restore", str(made.folder), **environment_of(manifest["schema_version"])
    ).err.splitlines()
    assert said[-1] == (
        "error: the backup has schema 0999, which this version does not know; upgrade"
        " mastodon-assets"
    )


def test_tables_of_an_older_schema_are_not_saved_before_they_are_migrated(
    environment_of: Callable[[str], dict[str, str]], commands: Commands
) -> None:
    before = sorted(migrations())[-2]
    said = commands.failure(1, "backup", **environment_of(before))
    versions = f"the schema is at version {before} and this program writes version {NEWEST};"
    assert said.startswith(versions)
    assert said.endswith("run: mastodon-assets migrate")
