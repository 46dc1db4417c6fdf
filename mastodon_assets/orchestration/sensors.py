"""The sensors: one keeps tables, scores and charts up to date, one removes, one alerts.

What belongs here: reading the facts within seconds. The decision is in `refresh_decision`.
"""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from sqlalchemy.exc import SQLAlchemyError

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.assets.common import CONFIRM_AFTER, REFRESHED
from mastodon_assets.orchestration.jobs import (
    BY_HAND,
    IN_FLIGHT,
    LANE,
    engagement_job,
    is_ours,
    refresh_job,
)
from mastodon_assets.orchestration.refresh_decision import Ask, RefreshFacts, decide_refresh
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.run_liveness import end_dead_runs

if TYPE_CHECKING:
    from mastodon_assets.kafka.topics import TopicState
    from mastodon_assets.stream.retention import RemovedRows

# Read back from failed runs to count the attempts for the same data.
TARGET_TAG = "mastodon_assets/target"

_Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation

_MAX_RUNS_READ = 20
_BROKER_TIMEOUT_SECONDS = 3
# Each observation stays in Dagster's history.
_SECONDS_TO_OBSERVE = 60
# A tick must end within a minute.
_SECONDS_TO_REMOVE_ROWS = 20


@dg.sensor(
    job=refresh_job,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Runs refresh_job when Kafka has new messages, rows changed, or there is a new"
    " champion model.",
)
def mastodon_stream_sensor(
    context: dg.SensorEvaluationContext, settings: SettingsResource
) -> dg.SensorResult | dg.SkipReason:
    """Compare Kafka with the tables and charts; request `refresh_job` or say why not."""
    from mastodon_assets.kafka.topics import read_topic

    try:
        loaded = settings.load()
        names = {
            "mastodon_stream": loaded.kafka_topic,
            "mastodon_errors": loaded.kafka_errors_topic,
        }
        topics = {
            asset: read_topic(loaded, name, timeout=_BROKER_TIMEOUT_SECONDS)
            for asset, name in names.items()
        }
        facts = read_facts(
            context.instance,
            loaded,
            topics["mastodon_stream"],
            ours=_assets(context),
            refreshed=_assets_of_refresh(context),
        )
    except PlatformError as error:
        return dg.SkipReason(str(error))
    decision = decide_refresh(facts)
    cursor, events = _observe(context.cursor, topics, facts)
    if not isinstance(decision, Ask):
        if decision.is_current:
            cursor, confirmed = _confirm(context, cursor, facts.now)
            events += confirmed
        return dg.SensorResult(skip_reason=decision.reason, asset_events=events, cursor=cursor)
    context.log.info("requesting a refresh: %s", decision.reason)
    tags = {**LANE, TARGET_TAG: facts.target_key}
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=decision.run_key, tags=tags)],
        asset_events=events,
        cursor=cursor,
    )


@dg.sensor(
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Removes runs, logs, messages and rows that are older than the settings *_KEEP_DAYS"
    " say.",
)
def retention_sensor(
    context: dg.SensorEvaluationContext, settings: SettingsResource
) -> dg.SkipReason:
    """Remove what is too old, a limited part of it per tick; note how much space is used."""
    from mastodon_assets.orchestration.disk_usage import take_sample
    from mastodon_assets.orchestration.retention import (
        remove_old_events,
        remove_old_messages,
        remove_old_runs,
    )
    from mastodon_assets.stream.retention import remove_old_rows

    now, instance = datetime.now(UTC), context.instance
    try:
        loaded = settings.load()
    except PlatformError as error:
        return dg.SkipReason(str(error))
    # The space that one of them frees must not wait until another works again.
    done, problems = _try_each(
        lambda: f"{remove_old_runs(instance, loaded, _assets(context), now)} runs",
        lambda: remove_old_events(instance, now),
        lambda: f"{remove_old_messages(loaded, now)} messages",
        lambda: _text_of_rows(remove_old_rows(loaded, now, seconds=_SECONDS_TO_REMOVE_ROWS)),
        lambda: take_sample(loaded, now),
    )
    return dg.SkipReason("; ".join([f"removed {', '.join(done) or 'nothing'}", *problems]))


def _try_each(*steps: Callable[[], str | None]) -> tuple[list[str], list[str]]:
    """Take all steps, whichever fail; return what they report, and why some failed."""
    done, problems = [], []
    for step in steps:
        try:
            report = step()
        except (PlatformError, OSError, SQLAlchemyError) as error:
            problems.append(str(error).partition("\n")[0])
        else:
            done += [report] if report else []
    return done, problems


def _text_of_rows(rows: "RemovedRows") -> str:
    return (
        f"{rows.posts} posts, {rows.windows} windows, {rows.rejected} dead letters,"
        f" {rows.alerts} closed incidents, {rows.gaps} gaps and {rows.deletes} deletes of"
        " unknown posts" + ("" if rows.is_complete else "; the next tick continues")
    )


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Opens and closes incidents, and sends messages about them (ALERT_WEBHOOK_URL,"
    " ALERT_URLS, ALERT_FILE).",
)
def alert_sensor(context: dg.SensorEvaluationContext, settings: SettingsResource) -> dg.SkipReason:
    """Read what is wrong; say how many incidents are open and what was sent."""
    from mastodon_assets.alerts.destinations import destinations_of
    from mastodon_assets.alerts.facts import read_facts as read_platform_facts
    from mastodon_assets.alerts.watch import watch
    from mastodon_assets.orchestration.alert_facts import read_dagster_facts

    assert context.repository_def is not None
    graph = context.repository_def.asset_graph
    now = datetime.now(UTC)
    try:
        loaded = settings.load()
        reading = read_platform_facts(loaded, now) + read_dagster_facts(
            context.instance, graph.get_all_asset_keys(), graph.asset_check_keys
        )
        return dg.SkipReason(str(watch(loaded, reading, destinations_of(loaded), now)))
    except PlatformError as error:
        return dg.SkipReason(f"nothing was looked at: {error}")


def read_facts(
    instance: dg.DagsterInstance,
    settings: Settings,
    topic: "TopicState",
    *,
    ours: Set[dg.AssetKey],
    refreshed: Set[dg.AssetKey],
) -> RefreshFacts:
    """Read from PostgreSQL and Dagster what the decision needs.

    Runs of our jobs whose process is gone are marked as failed first.

    Args:
        instance: Dagster's instance.
        settings: The settings.
        topic: The state of the topic.
        ours: The assets of the code location.
        refreshed: The assets of `refresh_job`.

    Raises:
        PlatformError: PostgreSQL does not answer or has no tables.
    """
    from mastodon_assets.orchestration.refresh_state import shown_state
    from mastodon_assets.stream.ledger import lag

    shown = shown_state(settings)
    started = instance.get_run_records(dg.RunsFilter(statuses=IN_FLIGHT), limit=_MAX_RUNS_READ)
    own = [each for each in started if is_ours(each.dagster_run, ours)]
    others = [each for each in started if each not in own]
    alive = [*end_dead_runs(instance, own), *others]
    refreshes = instance.get_run_records(
        dg.RunsFilter(job_name=refresh_job.name), limit=_MAX_RUNS_READ
    )
    in_flight = [record for record in alive if _holds_lane(record.dagster_run, refreshed)]
    return RefreshFacts(
        now=datetime.now(UTC),
        lag=lag(shown.ledger, topic.end),
        is_topic_cut=any(topic.end.get(p, -1) < offset for p, offset in shown.ledger.items()),
        end_offsets=topic.end,
        toots_version=shown.toots_version,
        shown_version=shown.shown_version,
        champion=shown.champion,
        shown_champions=shown.shown_champions,
        run_in_flight=_run_name(in_flight[0]) if in_flight else None,
        last_asked_at=refreshes[0].create_timestamp if refreshes else None,
        failed_targets=[
            record.dagster_run.tags.get(TARGET_TAG)
            for record in _failed_since_success(instance, refreshes)
        ],
        min_interval=timedelta(seconds=settings.refresh_min_seconds),
    )


def _observe(
    cursor: str | None, topics: Mapping[str, "TopicState"], facts: RefreshFacts
) -> tuple[str, list[_Event]]:
    """Return the next cursor, and observations if offsets changed and the last is a minute old.

    The cursor serves observations only. Progress is in the ledger.
    """
    offsets = {asset: _end_offsets(topic) for asset, topic in topics.items()}
    now, last = facts.now.timestamp(), _read_cursor(cursor)
    try:
        is_due = last["offsets"] != offsets and now >= last["at"] + _SECONDS_TO_OBSERVE
    except (KeyError, TypeError):
        # The first tick, or a cursor that somebody has edited.
        is_due = True
    if cursor is not None and not is_due:
        return cursor, []
    new = json.dumps({**last, "offsets": offsets, "at": now})
    return new, [*_observations(topics, {"mastodon_stream": facts.lag})]


def _confirm(
    context: dg.SensorEvaluationContext, cursor: str, now: datetime
) -> tuple[str, list[_Event]]:
    """Return the next cursor, and a materialization of each asset whose last is hours old.

    Freshness policies look at materializations only. A quiet server has none, and is not stale.
    """
    last = _read_cursor(cursor)
    confirmed_at = last.get("confirmed_at")
    if isinstance(confirmed_at, float) and now.timestamp() < (
        confirmed_at + CONFIRM_AFTER.total_seconds()
    ):
        return cursor, []
    assert context.repository_def is not None
    graph = context.repository_def.asset_graph
    refreshed = sorted(
        key for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy == REFRESHED
    )
    before = (now - CONFIRM_AFTER).timestamp()
    events = (context.instance.get_latest_materialization_event(key) for key in refreshed)
    old = [event.asset_materialization for event in events if event and event.timestamp < before]
    new = json.dumps({**last, "confirmed_at": now.timestamp()})
    return new, [_confirmation(each) for each in old if each]


def _confirmation(latest: dg.AssetMaterialization) -> dg.AssetMaterialization:
    """Return the materialization again, without the numbers of its run."""
    kept = {
        name: value
        for name, value in latest.metadata.items()
        if name.startswith("dagster/")
        or not isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)
    }
    return dg.AssetMaterialization(
        latest.asset_key,
        description="Confirmed: nothing has changed.",
        metadata={**kept, "is_confirmation": True},
        tags=dict(latest.tags or {}),
    )


def _read_cursor(cursor: str | None) -> dict[str, Any]:
    """Return the cursor's document; empty at the first tick or if somebody has edited it."""
    try:
        document = json.loads(cursor or "")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _assets(context: dg.SensorEvaluationContext) -> Set[dg.AssetKey]:
    assert context.repository_def is not None
    return context.repository_def.asset_graph.get_all_asset_keys()


def _assets_of_refresh(context: dg.SensorEvaluationContext) -> Set[dg.AssetKey]:
    assert context.repository_def is not None
    job = context.repository_def.get_job(refresh_job.name)
    return frozenset(job.asset_layer.executable_asset_keys)


def _holds_lane(run: dg.DagsterRun, refreshed: Set[dg.AssetKey]) -> bool:
    """Return whether a refresh must wait for the run: it writes what a refresh writes."""
    if run.job_name == BY_HAND:
        return run.asset_selection is None or bool(run.asset_selection & refreshed)
    return run.job_name in (refresh_job.name, engagement_job.name)


def _failed_since_success(
    instance: dg.DagsterInstance, refreshes: Sequence[dg.RunRecord]
) -> list[dg.RunRecord]:
    """Return the refreshes that failed since the last success of one or of a run by hand.

    A canceled refresh counts neither as failed nor as succeeded.
    """
    succeeded = dg.RunsFilter(job_name=BY_HAND, statuses=[dg.DagsterRunStatus.SUCCESS])
    by_hand = instance.get_run_records(succeeded, limit=1)
    failed = []
    for record in refreshes:
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            break
        if by_hand and record.create_timestamp < by_hand[0].create_timestamp:
            break
        if record.dagster_run.status == dg.DagsterRunStatus.FAILURE:
            failed.append(record)
    return failed


def _run_name(record: dg.RunRecord) -> str:
    run = record.dagster_run
    job = "materialization by hand" if run.job_name == BY_HAND else run.job_name
    return f"{job} {run.run_id[:8]} (since {record.create_timestamp:%Y-%m-%d %H:%M} UTC)"


def _observations(
    topics: Mapping[str, "TopicState"], lags: Mapping[str, int]
) -> list[dg.AssetObservation]:
    return [
        dg.AssetObservation(
            asset,
            metadata={
                "topic": topic.topic,
                "end_offsets": dg.MetadataValue.json(_end_offsets(topic)),
                "messages": sum(topic.end.values()) - sum(topic.earliest.values()),
                **({"lag_messages": lags[asset]} if asset in lags else {}),
            },
            tags={DATA_VERSION_TAG: "-".join(map(str, _end_offsets(topic).values())) or "empty"},
        )
        for asset, topic in topics.items()
    ]


def _end_offsets(topic: "TopicState") -> dict[str, int]:
    return {str(partition): end for partition, end in sorted(topic.end.items())}
