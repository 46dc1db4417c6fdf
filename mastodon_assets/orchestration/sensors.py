"""The sensor that keeps tables, scores and charts up to date with Kafka.

What belongs here: reading the facts within seconds. The decision is in `refresh_decision`.
"""

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

# Read back from failed runs to count the attempts for the same data.
TARGET_TAG = "mastodon_assets/target"

_IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# Dagster's job name for assets selected by hand, on the web page or on the command line.
_BY_HAND = "__ASSET_JOB"
_MAX_RUNS_READ = 20
_BROKER_TIMEOUT_SECONDS = 3


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
    ""
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
        facts = read_facts(context.instance, loaded, topics["mastodon_stream"])
    except PlatformError as error:
        return dg.SkipReason(str(error))
    decision = decide_refresh(facts)
    # It only prevents observing the same offsets twice. Progress is in the ledger.
    cursor = json.dumps({asset: _end_offsets(topic) for asset, topic in topics.items()})
    observations = [] if cursor == context.cursor else _observations(topics)
    if not isinstance(decision, Ask):
        return dg.SensorResult(
            skip_reason=decision.reason, asset_events=observations, cursor=cursor
        )
    context.log.info("requesting a refresh: %s", decision.reason)
    tags = {**LANE, TARGET_TAG: facts.target_key}
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=decision.run_key, tags=tags)],
        asset_events=observations,
        cursor=cursor,
    )


def read_facts(
    instance: dg.DagsterInstance, settings: Settings, topic: "TopicState"
) -> RefreshFacts:
    """Read from PostgreSQL and Dagster what the decision needs, given the state of the topic.

    Raises:
        PlatformError: PostgreSQL does not answer or has no tables.
    """
    from mastodon_assets.orchestration.refresh_state import shown_state
    from mastodon_assets.stream.ledger import lag

    shown = shown_state(settings)
    refreshes = instance.get_run_records(
        dg.RunsFilter(job_name=refresh_job.name), limit=_MAX_RUNS_READ
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
        run_in_flight=_run_name(in_flight[0]) if in_flight else None,
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
    """Return the refreshes that failed since the last success of one or of a run by hand.

    A canceled refresh counts neither as failed nor as succeeded.
    """
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


def _run_name(record: dg.RunRecord) -> str:
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
