"""The Kafka sensor: reads the facts within seconds, decides by `decision`, never works itself."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.jobs import LANE, refresh_job
from mastodon_assets.orchestration.refresh_decision import Ask, RefreshFacts, decide_refresh
from mastodon_assets.orchestration.resources import SettingsResource

if TYPE_CHECKING:
    from mastodon_assets.kafka.topics import TopicState

# Read back from failed runs, to tell a new reason to refresh from the one that failed.
TARGET_TAG = "mastodon_assets/target"

_IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# What Dagster calls a run of assets selected by hand, in the web page or on the command line.
_BY_HAND = "__ASSET_JOB"
_RUNS_LOOKED_AT = 20
_BROKER_TIMEOUT = 3


@dg.sensor(
    job=refresh_job,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a refresh when Kafka is ahead of the tables, rows changed, or there is a"
    " new champion.",
)
def mastodon_stream_sensor(
    context: dg.SensorEvaluationContext, settings: SettingsResource
) -> dg.SensorResult | dg.SkipReason:
    """Compare Kafka, tables and what is shown; ask for `refresh_job` or say why not."""
    from mastodon_assets.kafka.topics import read_topic

    try:
        loaded = settings.load()
        names = {
            "mastodon_stream": loaded.kafka_topic,
            "mastodon_errors": loaded.kafka_errors_topic,
        }
        topics = {
            asset: read_topic(loaded, name, timeout=_BROKER_TIMEOUT)
            for asset, name in names.items()
        }
        facts = read_facts(context.instance, loaded, topics["mastodon_stream"])
    except PlatformError as error:
        return dg.SkipReason(str(error))
    decision = decide_refresh(facts)
    # Only for not observing the same twice; progress is the ledger's.
    cursor = json.dumps({asset: _end_offsets(topic) for asset, topic in topics.items()})
    observations = [] if cursor == context.cursor else _observations(topics)
    if not isinstance(decision, Ask):
        return dg.SensorResult(
            skip_reason=decision.reason, asset_events=observations, cursor=cursor
        )
    context.log.info(f"asking for a refresh: {decision.reason}")
    tags = {**LANE, TARGET_TAG: facts.target_key}
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=decision.run_key, tags=tags)],
        asset_events=observations,
        cursor=cursor,
    )


def read_facts(
    instance: dg.DagsterInstance, settings: Settings, topic: "TopicState"
) -> RefreshFacts:
    """What the decision needs of PostgreSQL and Dagster, beside what Kafka says of the topic.

    Raises: PlatformError with the reason where PostgreSQL does not answer or has no tables.
    """
    from mastodon_assets.orchestration.refresh_state import shown_state
    from mastodon_assets.stream.ledger import lag

    shown = shown_state(settings)
    refreshes = instance.get_run_records(
        dg.RunsFilter(job_name=refresh_job.name), limit=_RUNS_LOOKED_AT
    )
    in_flight = instance.get_run_records(dg.RunsFilter(statuses=_IN_FLIGHT), limit=1)
    return RefreshFacts(
        now=datetime.now(UTC),
        lag=lag(shown.ledger, topic.end),
        is_topic_cut=any(topic.end.get(p, -1) < offset for p, offset in shown.ledger.items()),
        end_offsets=topic.end,
        toots_version=shown.toots_version,
        shown_version=shown.shown_version,
        champion=shown.champion,
        shown_champions=shown.shown_champions,
        run_in_flight=_named(in_flight[0]) if in_flight else None,
        last_asked_at=refreshes[0].create_timestamp if refreshes else None,
        failed_targets=[
            record.dagster_run.tags.get(TARGET_TAG)
            for record in _failed_since_success(instance, refreshes)
        ],
        min_interval=timedelta(seconds=settings.refresh_min_seconds),
    )


def _failed_since_success(
    instance: dg.DagsterInstance, refreshes: Sequence[dg.RunRecord]
) -> list[dg.RunRecord]:
    """The failed ones since a refresh, or assets by hand, succeeded; a canceled one is neither."""
    succeeded = dg.RunsFilter(job_name=_BY_HAND, statuses=[dg.DagsterRunStatus.SUCCESS])
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


def _named(record: dg.RunRecord) -> str:
    run = record.dagster_run
    job = "materialization by hand" if run.job_name == _BY_HAND else run.job_name
    return f"{job} {run.run_id[:8]} (since {record.create_timestamp:%Y-%m-%d %H:%M} UTC)"


def _observations(topics: Mapping[str, "TopicState"]) -> list[dg.AssetObservation]:
    return [
        dg.AssetObservation(
            asset,
            metadata={
                "topic": topic.topic,
                "end_offsets": dg.MetadataValue.json(_end_offsets(topic)),
                "messages": sum(topic.end.values()) - sum(topic.earliest.values()),
            },
        )
        for asset, topic in topics.items()
    ]


def _end_offsets(topic: "TopicState") -> dict[str, int]:
    return {str(partition): end for partition, end in sorted(topic.end.items())}
