"""Retention: what Dagster and Kafka keep, and for how long.

What belongs here: which runs, events and messages are too old. The days are in the settings.
"""

from collections.abc import Iterator, Sequence, Set
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.sqlalchemy_compat import db_select

from mastodon_assets.config.settings import Settings
from mastodon_assets.orchestration.jobs import BY_HAND, JOBS, is_ours, refresh_job

# A tick of a sensor must end within a minute.
MAX_RUNS_PER_TICK = 50
# Observations of topics and reports of the stream: a few per minute, of interest for a while only.
_EVENT_DAYS = 1
_MAX_RUNS_READ = 5_000
_ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def remove_old_runs(
    instance: dg.DagsterInstance,
    settings: Settings,
    assets: Set[dg.AssetKey],
    now: datetime,
    limit: int = MAX_RUNS_PER_TICK,
) -> int:
    """Remove ended runs with their events and logs, the oldest first.

    Runs of our jobs go after DAGSTER_KEEP_DAYS. Of the refreshes that succeeded, the newest
    DAGSTER_KEEP_REFRESHES stay, and the last of each day.

    Args:
        instance: Dagster's instance, which other projects may use as well.
        settings: The settings.
        assets: Our assets; a run by hand is ours if it selected one of them.
        now: The time.
        limit: How many runs to remove at most.

    Returns:
        The number of removed runs, at most `limit`.
    """
    expired = _expired(instance, assets, now - timedelta(days=settings.dagster_keep_days), limit)
    surplus = _surplus_refreshes(instance, settings.dagster_keep_refreshes)
    chosen = list(dict.fromkeys([*expired, *surplus]))[:limit]
    for run_id in chosen:
        _remove(instance, run_id)
    return len(chosen)


def remove_old_events(instance: dg.DagsterInstance, now: datetime) -> None:
    """Remove events without a run after a day: observations, and reports of the stream."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return
    events = SqlEventLogStorageTable
    before = (now - timedelta(days=_EVENT_DAYS)).replace(tzinfo=None)
    with storage.index_connection() as connection:
        is_old = (events.c.run_id == "") & (events.c.timestamp < before)
        ids = db_select([events.c.id]).where(is_old)
        connection.execute(
            AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(ids))
        )
        connection.execute(events.delete().where(is_old))


def remove_old_messages(settings: Settings, now: datetime) -> int:
    """Remove the messages that are in the tables after KAFKA_KEEP_DAYS, and old dead letters.

    Returns:
        The number of removed messages.

    Raises:
        PlatformError: Kafka or PostgreSQL does not answer, or there are no topics or tables yet.
    """
    from mastodon_assets.kafka.retention import delete_old_records
    from mastodon_assets.kafka.topics import read_topic
    from mastodon_assets.stream.ledger import read_ledger_of
    from mastodon_assets.warehouse.database import transaction

    topic = read_topic(settings, settings.kafka_topic)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        ledger = read_ledger_of(connection, topic)
    return delete_old_records(
        settings,
        settings.kafka_topic,
        older_than=now - timedelta(days=settings.kafka_keep_days),
        read_up_to=ledger,
    ) + delete_old_records(
        settings,
        settings.kafka_errors_topic,
        older_than=now - timedelta(days=settings.kafka_errors_keep_days),
    )


def _expired(
    instance: dg.DagsterInstance, assets: Set[dg.AssetKey], before: datetime, limit: int
) -> Iterator[str]:
    for job in (BY_HAND, *(job.name for job in JOBS)):
        filters = dg.RunsFilter(job_name=job, statuses=_ENDED, created_before=before)
        for record in instance.get_run_records(filters, limit=limit, ascending=True):
            if is_ours(record.dagster_run, assets):
                yield record.dagster_run.run_id


def _surplus_refreshes(instance: dg.DagsterInstance, kept: int) -> Sequence[str]:
    """Return the successful refreshes that are neither among the newest nor the last of a day."""
    filters = dg.RunsFilter(job_name=refresh_job.name, statuses=[dg.DagsterRunStatus.SUCCESS])
    records = instance.get_run_records(filters, limit=_MAX_RUNS_READ)
    surplus = []
    for _, of_day in groupby(
        enumerate(records), key=lambda numbered: numbered[1].create_timestamp.date()
    ):
        _last, *others = of_day
        surplus += [record.dagster_run.run_id for number, record in others if number >= kept]
    return surplus[::-1]


def _remove(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        # Dagster keeps the results of checks.
        checks = AssetCheckExecutionsTable
        with storage.index_connection() as connection:
            connection.execute(checks.delete().where(checks.c.run_id == run_id))
    if isinstance(storage, SqliteEventLogStorage):
        # Each run has a database file of its own, which Dagster empties but does not delete.
        database = Path(storage.path_for_shard(run_id))
        for path in database.parent.glob(f"{run_id}.db*"):
            path.unlink(missing_ok=True)
