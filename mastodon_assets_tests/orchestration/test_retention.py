"""Retention, on a real instance and a real broker."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from confluent_kafka import Producer

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.kafka.client import config_of
from mastodon_assets.kafka.topics import create_topics, read_topic
from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets.orchestration.retention import (
    remove_old_events,
    remove_old_messages,
    remove_old_runs,
)
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.records import upsert

pytestmark = pytest.mark.usefixtures("processes")

_OURS = frozenset({dg.AssetKey("ours")})
_NOW = datetime.now(UTC)


@dg.asset
def ours(context: dg.AssetExecutionContext) -> None:
    context.log.info("materialized")


@dg.asset_check(asset=ours)
def is_ours() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(dagster_home(tmp_path))) as opened:
        yield opened


def _add_run(
    instance: dg.DagsterInstance,
    days_ago: float,
    *,
    job: str = "refresh_job",
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS,
    asset: str | None = None,
) -> str:
    selection = frozenset({dg.AssetKey(asset)}) if asset else None
    run = dg.DagsterRun(job_name=job, status=status, asset_selection=selection)
    # At noon, so that hours before it are the same day.
    noon = _NOW.replace(hour=12)
    instance.run_storage.add_historical_run(run, noon - timedelta(days=days_ago))
    return run.run_id


def _runs(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def test_runs_go_after_their_days_and_those_of_other_projects_stay(
    instance: dg.DagsterInstance,
) -> None:
    settings = load_settings(dagster_keep_days=30)
    failed = dg.DagsterRunStatus.FAILURE
    for job, asset in (("refresh_job", None), ("train_job", None), ("__ASSET_JOB", "ours")):
        _add_run(instance, 31, job=job, status=failed, asset=asset)
    kept = {
        _add_run(instance, 29, status=failed),
        _add_run(instance, 31, job="another_project"),
        _add_run(instance, 31, job="__ASSET_JOB", asset="theirs"),
        _add_run(instance, 31, status=dg.DagsterRunStatus.STARTED),
    }
    assert remove_old_runs(instance, settings, _OURS, _NOW) == 3
    assert _runs(instance) == kept


def test_of_the_refreshes_that_succeeded_the_newest_stay_and_the_last_of_each_day(
    instance: dg.DagsterInstance,
) -> None:
    settings = load_settings(dagster_keep_refreshes=2)
    # In the order in which they were created, as Dagster numbers them.
    failed = _add_run(instance, 4, status=dg.DagsterRunStatus.FAILURE)
    days = [_add_run(instance, 3 + hours / 24) for hours in (2, 1, 0)]
    hours = [_add_run(instance, hours / 24) for hours in (3, 2, 1, 0)]
    assert remove_old_runs(instance, settings, _OURS, _NOW) == 4
    assert _runs(instance) == {*hours[-2:], days[-1], failed}


def test_a_removed_run_leaves_no_file_and_its_assets_keep_their_last_materialization(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    definitions = dg.Definitions([ours], jobs=[dg.define_asset_job("refresh_job", "ours")])
    job = definitions.get_repository_def().get_job("refresh_job")
    first, second = (job.execute_in_process(instance=instance).run_id for _ in range(2))
    settings = load_settings(dagster_keep_refreshes=1)
    assert remove_old_runs(instance, settings, _OURS, _NOW) == 1
    assert _runs(instance) == {second}
    files = [path.name for path in tmp_path.rglob("*")]
    assert not any(first in name for name in files)
    assert any(second in name for name in files)
    assert instance.get_latest_materialization_event(dg.AssetKey("ours")) is not None


def test_the_history_does_not_grow_once_there_are_as_many_refreshes_as_are_kept(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    refresh = dg.define_asset_job("refresh_job", dg.AssetSelection.all())
    definitions = dg.Definitions([ours], asset_checks=[is_ours], jobs=[refresh])
    job = definitions.get_repository_def().get_job("refresh_job")
    settings = load_settings(dagster_keep_refreshes=2)
    sizes = []
    for _ in range(6):
        assert job.execute_in_process(instance=instance, tags={"lane": "toots"}).success
        remove_old_runs(instance, settings, _OURS, _NOW)
        sizes.append((_rows(tmp_path), sum(path.is_file() for path in tmp_path.rglob("*"))))
    assert len(_runs(instance)) == 2
    assert sizes[0][0]["index.db/event_logs"] > 0
    assert sizes[0][0]["index.db/asset_check_executions"] == 1
    assert sizes[2:] == [sizes[1]] * 4


def _rows(folder: Path) -> Counter[str]:
    """The rows of each table of Dagster's databases; those of runs count as one database."""
    rows: Counter[str] = Counter()
    for path in folder.rglob("*.db"):
        name = path.name if path.stem in ("index", "runs", "schedules") else "of a run"
        with closing(sqlite3.connect(path)) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
                ((count,),) = database.execute(f'SELECT count(*) FROM "{table}"')  # noqa: S608
                rows[f"{name}/{table}"] += count
    return rows


def test_observations_go_after_a_day(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(dg.AssetObservation("topic"))
    filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey("topic"))
    remove_old_events(instance, _NOW)
    assert len(instance.fetch_observations(filters, limit=9).records) == 1
    remove_old_events(instance, _NOW + timedelta(days=2))
    assert len(instance.fetch_observations(filters, limit=9).records) == 0


def test_messages_go_after_their_days_but_not_before_the_tables_have_read_them(
    environment: Settings, produce: Callable[..., None]
) -> None:
    create_topics(environment.kafka_access, [environment.kafka_errors_topic])
    produce([upsert(str(number)) for number in range(10)])
    topic = read_topic(environment, environment.kafka_topic)
    _record_ledger(environment, topic.topic_id, 7)
    assert remove_old_messages(environment, _NOW + timedelta(days=1)) == 0
    later = _NOW + timedelta(days=environment.kafka_keep_days, hours=1)
    assert remove_old_messages(environment, later) == 7
    assert read_topic(environment, environment.kafka_topic).earliest[0] == 7


def test_messages_of_a_topic_that_was_created_again_wait_until_they_are_read(
    environment: Settings, produce: Callable[..., None]
) -> None:
    """The stream has stopped then: the offsets of the ledger are those of the topic before."""
    create_topics(environment.kafka_access, [environment.kafka_errors_topic])
    produce([upsert(str(number)) for number in range(10)])
    _record_ledger(environment, "the id of an earlier topic", 1_000)
    later = _NOW + timedelta(days=environment.kafka_keep_days, hours=1)

    assert remove_old_messages(environment, later) == 0
    assert read_topic(environment, environment.kafka_topic).earliest[0] == 0


def _record_ledger(settings: Settings, topic_id: str, next_offset: int) -> None:
    with transaction(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.kafka_offsets (topic, partition, topic_id, next_offset)"
            " VALUES (%s, 0, %s, %s)",
            (settings.kafka_topic, topic_id, next_offset),
        )


def test_dead_letters_go_after_days_of_their_own(environment: Settings) -> None:
    topic = f"{environment.kafka_topic}_errors"
    settings = environment.model_copy(update={"kafka_errors_topic": topic})
    create_topics(settings.kafka_access, [topic])
    producer = Producer({**config_of(settings.kafka_access), "acks": "all"})
    for _ in range(3):
        producer.produce(topic, b"{}", partition=0)
    assert producer.flush(30) == 0
    assert (settings.kafka_keep_days, settings.kafka_errors_keep_days) == (7, 90)
    assert remove_old_messages(settings, _NOW + timedelta(days=89)) == 0
    assert remove_old_messages(settings, _NOW + timedelta(days=90, hours=1)) == 3
