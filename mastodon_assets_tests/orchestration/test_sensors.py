"""The sensor against a real broker, a real database and Dagster's own record of runs."""

import errno
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.definitions import build_definitions
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.kafka.topics import TopicMissingError, read_topic
from mastodon_assets.orchestration import disk_usage, run_liveness, sensors
from mastodon_assets.orchestration.refresh_state import DERIVED_ASSETS, LABELLED_ASSETS
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.sensors import (
    TARGET_TAG,
    mastodon_stream_sensor,
    retention_sensor,
)
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.watermarks import set_watermark
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.records import upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_REPOSITORY = build_definitions().get_repository_def()
_STATUS = dg.DagsterRunStatus

AddRun = Callable[..., dg.DagsterRun]


@pytest.fixture(autouse=True)
def _no_minimum(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFRESH_MIN_SECONDS", "0")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def add_run(instance: dg.DagsterInstance) -> AddRun:
    """`add_run(status, job="refresh_job", minutes_ago=0, tags=…)`: a run that nobody executes."""

    def add(
        status: dg.DagsterRunStatus,
        *,
        job: str = "refresh_job",
        minutes_ago: float = 0,
        tags: dict[str, str] | None = None,
        assets: set[str] | None = None,
    ) -> dg.DagsterRun:
        selection = frozenset(map(dg.AssetKey, assets)) if assets else None
        run = dg.DagsterRun(job_name=job, status=status, tags=tags or {}, asset_selection=selection)
        created_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        return instance.run_storage.add_historical_run(run, created_at)

    return add


def _tick(instance: dg.DagsterInstance, cursor: str | None = None) -> SensorExecutionData:
    """One evaluation, as Dagster's daemon asks the code location for it."""
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        repository_def=_REPOSITORY,
        resources={"settings": SettingsResource()},
    ) as context:
        return mastodon_stream_sensor.evaluate_tick(context)


def _asked(instance: dg.DagsterInstance) -> dg.RunRequest:
    tick = _tick(instance)
    assert tick.run_requests, tick.skip_message
    (request,) = tick.run_requests
    return request


def _skipped(instance: dg.DagsterInstance) -> str:
    tick = _tick(instance)
    assert not tick.run_requests
    assert tick.skip_message
    return tick.skip_message


def _show_everything(settings: Settings, *, version: int = 0, model: str | None = None) -> None:
    with transaction(settings.postgres_url) as connection:
        for asset in DERIVED_ASSETS:
            set_watermark(
                connection,
                asset,
                toots_version=version,
                model_version=model if asset in LABELLED_ASSETS else None,
            )


def _execute(settings: Settings, statement: str, *values: Any) -> None:
    with transaction(settings.postgres_url) as connection:
        connection.execute(statement.encode(), values)


def test_ten_thousand_messages_make_one_run_and_then_nothing_is_new(
    spark: "SparkSession",
    environment: Settings,
    produce: Callable[..., None],
    instance: dg.DagsterInstance,
    add_run: AddRun,
) -> None:
    requests: list[dg.RunRequest] = []
    in_flight: dg.DagsterRun | None = None
    for portion in range(10):
        first = 1000 * portion
        produce([upsert(str(n)) for n in range(first, first + 1000)], partition=portion % 4)
        tick = _tick(instance)
        requests += tick.run_requests or []
        if in_flight is None:
            in_flight = add_run(_STATUS.STARTED, tags=dict(requests[0].tags))
    assert len(requests) == 1
    assert in_flight is not None
    run = f"refresh_job {in_flight.run_id[:8]}"
    assert f"10000 new messages; waiting for {run}" in _skipped(instance)

    instance.delete_run(in_flight.run_id)
    result = _REPOSITORY.get_job("refresh_job").execute_in_process(
        instance=instance, run_id=in_flight.run_id, tags=dict(requests[0].tags)
    )
    assert result.success
    assert _skipped(instance).startswith("nothing new")
    with transaction(environment.postgres_url, snapshot=True) as connection:
        assert connection.execute("SELECT count(*) FROM masto.toots_raw").fetchone() == (10_000,)

    _execute(environment, "UPDATE masto.data_versions SET version = version + 1")
    assert TARGET_TAG in _asked(instance).tags


def test_a_platform_without_a_message_starts_no_run(instance: dg.DagsterInstance) -> None:
    assert "mastodon-assets ingest" in _skipped(instance)


def test_the_topics_ends_are_reported_on_the_topics_assets_once(
    environment: Settings, produce: Callable[..., None], instance: dg.DagsterInstance
) -> None:
    produce([upsert("1"), upsert("2")], partition=3)
    tick = _tick(instance)
    stream, errors = tick.asset_events
    assert stream.asset_key == dg.AssetKey("mastodon_stream")
    assert stream.metadata["end_offsets"].value == {"0": 0, "1": 0, "2": 0, "3": 2}
    assert stream.metadata["topic"].value == environment.kafka_topic
    assert stream.metadata["lag_messages"].value == 2
    assert isinstance(stream, dg.AssetObservation)
    assert stream.tags == {"dagster/data_version": "0-0-0-2"}
    assert errors.asset_key == dg.AssetKey("mastodon_errors")
    assert errors.metadata["topic"].value == "mastodon_errors"
    assert _tick(instance, cursor=tick.cursor).asset_events == []
    produce([upsert("3")])
    assert _tick(instance, cursor=tick.cursor).asset_events == []
    assert tick.cursor is not None
    a_minute_ago = json.dumps({**json.loads(tick.cursor), "at": time.time() - 60})
    later = _tick(instance, cursor=a_minute_ago)
    assert later.asset_events[0].metadata["messages"].value == 3
    assert len(_tick(instance, cursor="edited by hand").asset_events) == 2


def test_the_topics_ends_are_reported_even_if_nothing_is_requested(
    produce: Callable[..., None], instance: dg.DagsterInstance, add_run: AddRun
) -> None:
    produce([upsert("1")])
    add_run(_STATUS.STARTED)
    tick = _tick(instance)
    assert not tick.run_requests
    assert [event.asset_key.to_user_string() for event in tick.asset_events] == [
        "mastodon_stream",
        "mastodon_errors",
    ]


def test_a_platform_without_news_confirms_its_assets_every_six_hours_so_that_none_looks_stale(
    environment: Settings,
    produce: Callable[..., None],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _show_everything(environment)
    for asset in ("toots_raw", "other"):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset,
                metadata={"dagster/row_count": 7, "batches": 1, "written_by": "stream"},
                tags={"dagster/data_version": "1-2"},
            )
        )

    def confirmed(tick: SensorExecutionData) -> list[dg.AssetMaterialization]:
        return [each for each in tick.asset_events if isinstance(each, dg.AssetMaterialization)]

    young = _tick(instance)
    assert confirmed(young) == []
    with monkeypatch.context() as patch:
        patch.setattr(sensors, "CONFIRM_AFTER", timedelta(0))
        old = _tick(instance, cursor=young.cursor)
    (again,) = confirmed(old)
    assert again.asset_key == dg.AssetKey("toots_raw")
    assert again.metadata.keys() == {"dagster/row_count", "written_by", "is_confirmation"}
    assert again.tags == {"dagster/data_version": "1-2"}
    assert confirmed(_tick(instance, cursor=old.cursor)) == []
    produce([upsert("1")])
    with monkeypatch.context() as patch:
        patch.setattr(sensors, "CONFIRM_AFTER", timedelta(0))
        news = _tick(instance, cursor=old.cursor)
    assert news.run_requests
    assert confirmed(news) == []


def test_the_request_runs_in_the_lane_of_all_writers(
    produce: Callable[..., None], instance: dg.DagsterInstance
) -> None:
    produce([upsert("1")])
    assert _asked(instance).tags["lane"] == "toots"


def test_after_a_failed_run_it_waits_then_asks_again_without_a_new_message(
    produce: Callable[..., None], instance: dg.DagsterInstance, add_run: AddRun
) -> None:
    produce([upsert("1")])
    first = _asked(instance)
    add_run(_STATUS.FAILURE, tags=dict(first.tags))
    assert "1 refresh failed in a row; next attempt at" in _skipped(instance)
    instance.delete_run(instance.get_runs(limit=1)[0].run_id)

    add_run(_STATUS.FAILURE, tags=dict(first.tags), minutes_ago=1)
    again = _asked(instance)
    assert again.run_key != first.run_key
    assert again.run_key is not None
    assert again.run_key.endswith("attempt-2")


def test_it_gives_up_after_eight_failures_and_new_messages_are_tried_again(
    produce: Callable[..., None], instance: dg.DagsterInstance, add_run: AddRun
) -> None:
    produce([upsert("1")])
    tags = dict(_asked(instance).tags)
    for days in range(8):
        add_run(_STATUS.FAILURE, tags=tags, minutes_ago=(8 - days) * 24 * 60)
    assert "gave up after 8" in _skipped(instance)
    produce([upsert("2")])
    _asked(instance)


def test_success_of_assets_materialized_by_hand_ends_a_row_of_failures(
    produce: Callable[..., None], instance: dg.DagsterInstance, add_run: AddRun
) -> None:
    produce([upsert("1")])
    for minutes in (0.4, 0.3):
        add_run(_STATUS.FAILURE, minutes_ago=minutes)
    assert "2 refreshes failed" in _skipped(instance)
    add_run(_STATUS.SUCCESS, job="__ASSET_JOB", minutes_ago=0.2)
    request = _asked(instance)
    assert request.run_key is not None
    assert request.run_key.endswith("attempt-1")


def test_a_canceled_refresh_counts_neither_as_failed_nor_as_succeeded(
    produce: Callable[..., None], instance: dg.DagsterInstance, add_run: AddRun
) -> None:
    produce([upsert("1")])
    add_run(_STATUS.CANCELED)
    _asked(instance)
    add_run(_STATUS.FAILURE)
    add_run(_STATUS.CANCELED)
    assert "1 refresh failed" in _skipped(instance)


@pytest.mark.parametrize(
    ("status", "job", "shown"),
    [
        (_STATUS.STARTING, "refresh_job", "refresh_job"),
        (_STATUS.STARTED, "engagement_job", "engagement_job"),
        (_STATUS.CANCELING, "__ASSET_JOB", "materialization by hand"),
    ],
)
def test_a_run_in_flight_that_writes_the_same_tables_is_waited_for(
    status: dg.DagsterRunStatus,
    job: str,
    shown: str,
    produce: Callable[..., None],
    instance: dg.DagsterInstance,
    add_run: AddRun,
) -> None:
    produce([upsert("1")])
    run = add_run(status, job=job)
    assert f"1 new message; waiting for {shown} {run.run_id[:8]} (since 20" in _skipped(instance)


def test_neither_training_nor_the_run_of_another_project_is_waited_for(
    produce: Callable[..., None], instance: dg.DagsterInstance, add_run: AddRun
) -> None:
    produce([upsert("1")])
    add_run(_STATUS.STARTED, job="train_job")
    add_run(_STATUS.STARTED, job="__ASSET_JOB", assets={"sentiment_pipeline_model"})
    add_run(_STATUS.STARTED, job="job_of_another_project", minutes_ago=600)
    _asked(instance)


def test_a_run_whose_process_is_gone_is_marked_as_failed_and_asked_again(
    produce: Callable[..., None],
    instance: dg.DagsterInstance,
    add_run: AddRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    produce([upsert("1")])
    first = _asked(instance)
    # Nobody executes it, and it is not starting any more.
    monkeypatch.setattr(run_liveness, "_SECONDS_TO_START", timedelta(0))
    dead = add_run(_STATUS.STARTED, tags=dict(first.tags), minutes_ago=2)
    again = _asked(instance)
    assert again.run_key is not None
    assert again.run_key.endswith("attempt-2")
    failed = instance.get_run_by_id(dead.run_id)
    assert failed is not None
    assert failed.status == _STATUS.FAILURE


def test_a_run_by_hand_of_another_project_is_left_alone_even_without_a_lock_of_ours(
    produce: Callable[..., None],
    instance: dg.DagsterInstance,
    add_run: AddRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    produce([upsert("1")])
    monkeypatch.setattr(run_liveness, "_SECONDS_TO_START", timedelta(0))
    by_hand: dict[str, Any] = {"job": "__ASSET_JOB", "minutes_ago": 2}
    theirs = add_run(_STATUS.STARTED, assets={"theirs"}, **by_hand)
    ours = add_run(_STATUS.STARTED, assets={"toots_raw"}, **by_hand)
    _asked(instance)
    found = {run.run_id: run.status for run in instance.get_runs()}
    assert found[theirs.run_id] == _STATUS.STARTED
    assert found[ours.run_id] == _STATUS.FAILURE


def _skipped_by_retention(instance: dg.DagsterInstance) -> str:
    with dg.build_sensor_context(
        instance=instance,
        repository_def=_REPOSITORY,
        resources={"settings": SettingsResource()},
    ) as context:
        message = retention_sensor.evaluate_tick(context).skip_message
    assert message
    return message


def test_retention_goes_on_with_rows_while_kafka_is_down_and_the_disk_takes_no_sample(
    environment: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    _execute(
        environment,
        "INSERT INTO masto.toots_rejected (topic, partition, kafka_offset, reason, rejected_at)"
        " VALUES ('topic', 0, 1, 'broken', now() - interval '91 days')",
    )
    monkeypatch.setattr(disk_usage, "take_sample", refuse)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    message = _skipped_by_retention(instance)
    assert "1 dead letters" in message
    assert "No space left on device" in message
    assert "Kafka" in message


def test_the_minimum_between_refreshes_counts_from_the_last_ones_start_in_any_time_zone(
    produce: Callable[..., None],
    instance: dg.DagsterInstance,
    add_run: AddRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REFRESH_MIN_SECONDS", "60")
    produce([upsert("1")])
    add_run(_STATUS.SUCCESS, minutes_ago=0.5)
    try:
        for zone in ("UTC", "Asia/Tokyo", "America/Los_Angeles"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert "next refresh not before" in _skipped(instance)
        instance.delete_run(instance.get_runs(limit=1)[0].run_id)
        add_run(_STATUS.SUCCESS, minutes_ago=1.1)
        _asked(instance)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_new_champion_asks_until_scores_and_their_charts_show_it(
    environment: Settings, instance: dg.DagsterInstance
) -> None:
    _show_everything(environment)
    assert "no messages yet" in _skipped(instance)
    _execute(
        environment,
        "INSERT INTO masto.sentiment_models (version, trained_at, metrics, corpus, status, path)"
        " VALUES ('m1', now(), '{}', 'c', 'champion', '/nowhere')",
    )
    _asked(instance)
    with transaction(environment.postgres_url) as connection:
        set_watermark(connection, "toots_sentiment", toots_version=0, model_version="m1")
    # The scores are new, but a chart failed.
    _asked(instance)
    _show_everything(environment, model="m1")
    _skipped(instance)


def test_one_asset_left_behind_asks_for_a_refresh(
    environment: Settings, instance: dg.DagsterInstance
) -> None:
    _execute(environment, "UPDATE masto.data_versions SET version = 7")
    for asset in DERIVED_ASSETS:
        _show_everything(environment, version=7)
        _skipped(instance)
        _execute(environment, "DELETE FROM masto.asset_progress WHERE asset = %s", asset)
        _asked(instance)


def test_a_topic_shorter_than_the_ledger_is_asked_about_not_passed_over(
    environment: Settings, produce: Callable[..., None], instance: dg.DagsterInstance
) -> None:
    produce([upsert("1")])
    _execute(
        environment,
        "INSERT INTO masto.kafka_offsets (topic, partition, topic_id, next_offset)"
        " VALUES (%s, 0, 'id', 5)",
        environment.kafka_topic,
    )
    _show_everything(environment)
    _asked(instance)


def test_a_broker_that_is_down_is_a_skip_with_its_reason(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", nowhere)
    reason = _skipped(instance)
    assert nowhere in reason
    assert "does not answer" in reason


@pytest.mark.parametrize("variable", ["KAFKA_TOPIC", "KAFKA_ERRORS_TOPIC"])
def test_a_missing_topic_is_a_skip_that_names_it_and_does_not_make_it(
    variable: str,
    stack: embedded.Connection,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, "no_such_topic")
    assert "no_such_topic" in _skipped(instance)
    with pytest.raises(TopicMissingError):
        read_topic(load_settings(), "no_such_topic")


def test_a_database_without_tables_is_a_skip_that_says_what_to_run(
    environment: Settings, instance: dg.DagsterInstance
) -> None:
    _execute(environment, "DROP SCHEMA masto CASCADE")
    assert "run: mastodon-assets up" in _skipped(instance)


def test_a_database_that_is_down_is_a_skip_without_the_password(
    environment: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://ada:secret@127.0.0.1:{free_port()}/toots")
    reason = _skipped(instance)
    assert "no connection to PostgreSQL" in reason
    assert "secret" not in reason


def test_wrong_settings_are_a_skip_that_names_the_variable(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFRESH_MIN_SECONDS", "soon")
    assert "REFRESH_MIN_SECONDS" in _skipped(instance)
