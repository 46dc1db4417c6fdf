"""The asset of the readings: it never fails for a server, and says what went wrong."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets.ingest.recovery.cursors import save_cursor
from mastodon_assets.orchestration.assets.engagement import toots_engagement
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.schedules import engagement_schedule
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.ports import free_port


def _materialize() -> dg.ExecuteInProcessResult:
    result = dg.materialize([toots_engagement], resources={"settings": SettingsResource()})
    assert result.success
    return result


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (made,) = result.asset_materializations_for_node("toots_engagement")
    return {name: value.value for name, value in made.metadata.items()}


def _asked(history: Path, *runs: dg.DagsterRun) -> dg.RunRequest | dg.SkipReason:
    at = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    with dg.DagsterInstance.local_temp(str(history)) as instance:
        for run in runs:
            instance.run_storage.add_run(run)
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=at,
            resources={"settings": SettingsResource()},
        ) as context:
            asked = engagement_schedule(context)
    assert isinstance(asked, dg.RunRequest | dg.SkipReason)
    return asked


def _add_post(settings: Settings, age: timedelta) -> None:
    at = datetime.now(UTC) - age
    with transaction(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.toots_raw VALUES (1, %(at)s, null, %(at)s, %(at)s, 1, 0, 0, 0,"
            " false, false, 'one.example', '1', 'https://one.example/1', 'ada@one.example', null,"
            " 'en', 'public', null, '{}', 'hello', null)",
            {"at": at},
        )


def test_without_a_server_it_is_made_with_no_rows_and_says_so(environment: Settings) -> None:
    result = _materialize()
    metadata = _metadata(result)
    assert metadata["servers"] == "none configured; set MASTODON_API_BASE_URL"
    assert (metadata["read"], metadata["dagster/row_count"]) == (0, 0)
    (check,) = result.get_asset_check_evaluations()
    assert check.passed


def test_a_server_that_is_away_is_a_warning_and_no_failed_run(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTODON_API_BASE_URL", f"http://127.0.0.1:{free_port()}")
    result = _materialize()
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "is the server up" in str(check.metadata["problems"].value)


def test_the_schedule_requests_a_run_only_if_a_server_is_configured_and_a_reading_is_due(
    environment: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert _asked(tmp_path) == dg.SkipReason("no server to read from; set MASTODON_API_BASE_URL")
    monkeypatch.setenv("MASTODON_API_BASE_URL", "https://one.example")
    _add_post(environment, timedelta(hours=2))
    assert _asked(tmp_path) == dg.SkipReason("no reading is due")
    save_cursor(environment.postgres_url, "one.example", "public", "1", "")
    assert isinstance(_asked(tmp_path), dg.RunRequest)
    # It waits behind a long refresh. The next tick must not add another one.
    waiting = dg.DagsterRun(job_name="engagement_job", status=dg.DagsterRunStatus.NOT_STARTED)
    assert _asked(tmp_path, waiting) == dg.SkipReason("a run of engagement_job waits or is at work")


@pytest.mark.usefixtures("loopback")
def test_the_schedule_says_why_it_cannot_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MASTODON_API_BASE_URL", "https://one.example")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:p@127.0.0.1:{free_port()}/db")
    skipped = _asked(tmp_path)
    assert isinstance(skipped, dg.SkipReason)
    assert "no connection to PostgreSQL" in str(skipped.skip_message)
