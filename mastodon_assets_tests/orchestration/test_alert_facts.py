"""What Dagster knows of failures, and the sensor that alerts by it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from mastodon_assets.config.settings import Settings
from mastodon_assets.definitions import build_definitions
from mastodon_assets.orchestration.alert_facts import read_dagster_facts
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.sensors import alert_sensor
from mastodon_assets.warehouse.database import transaction

_STATUS = dg.DagsterRunStatus
_ASSET = dg.AssetKey("toots_raw")
_CHECK = dg.AssetCheckKey(_ASSET, "toots_raw_is_as_registered")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def _facts(instance: dg.DagsterInstance) -> list[str]:
    return [each.fact for each in read_dagster_facts(instance, {_ASSET}, {_CHECK}).problems]


def _add_run(
    instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus, minutes_ago: int
) -> None:
    created_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    run = dg.DagsterRun(job_name=job, status=status)
    instance.run_storage.add_historical_run(run, created_at)


def test_a_job_is_a_problem_while_its_last_ended_run_failed(instance: dg.DagsterInstance) -> None:
    assert _facts(instance) == []
    _add_run(instance, "refresh_job", _STATUS.FAILURE, 9)
    _add_run(instance, "refresh_job", _STATUS.CANCELED, 8)
    _add_run(instance, "train_job", _STATUS.FAILURE, 7)
    _add_run(instance, "another_project", _STATUS.FAILURE, 7)
    assert _facts(instance) == ["run_failed refresh_job", "run_failed train_job"]
    _add_run(instance, "__ASSET_JOB", _STATUS.SUCCESS, 6)
    assert _facts(instance) == ["run_failed train_job"]
    _add_run(instance, "train_job", _STATUS.SUCCESS, 5)
    assert _facts(instance) == []


def test_a_failed_check_is_a_problem_also_as_a_warning(instance: dg.DagsterInstance) -> None:
    for passed in (False, True):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=_ASSET,
                check_name=_CHECK.name,
                passed=passed,
                metadata={},
                severity=dg.AssetCheckSeverity.WARN,
            )
        )
        expected = [] if passed else ["check_failed toots_raw:toots_raw_is_as_registered"]
        assert _facts(instance) == expected


def test_an_asset_that_is_older_than_its_policy_allows_is_a_problem(
    instance: dg.DagsterInstance,
) -> None:
    for state in (FreshnessState.WARN, FreshnessState.FAIL, FreshnessState.PASS):
        instance._report_runless_asset_event(
            FreshnessStateChange(
                key=_ASSET,
                new_state=state,
                previous_state=FreshnessState.UNKNOWN,
                state_change_timestamp=datetime.now(UTC).timestamp(),
            )
        )
        expected = ["asset_stale toots_raw"] if state == FreshnessState.FAIL else []
        assert _facts(instance) == expected


def test_the_sensor_tells_by_its_tick_what_it_did_and_why_it_could_not(
    environment: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = environment.mastodon_assets_home / "alerts.jsonl"
    monkeypatch.setenv("ALERT_FILE", str(file))
    monkeypatch.setenv("ALERT_DISK_GIB", "0")

    def tick() -> str | None:
        with dg.build_sensor_context(
            instance=instance,
            repository_def=build_definitions().get_repository_def(),
            resources={"settings": SettingsResource()},
        ) as context:
            return alert_sensor.evaluate_tick(context).skip_message

    assert tick() == "0 open incidents; 0 messages sent"
    with transaction(environment.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.ingest_sources (instance, source, state)"
            " VALUES ('one.example', 'public', 'refused')"
        )
    assert tick() == "1 open incident; 1 message sent"
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert "one.example/public: the server refuses the token" in json.loads(line)["text"]
    monkeypatch.setenv("ALERT_FILE", "/proc/alerts")
    monkeypatch.setenv("ALERT_REMINDER_HOURS", "none")
    assert (tick() or "").startswith("nothing was looked at: ALERT_REMINDER_HOURS='none': allowed")
