"""The Kafka sensor: reads the facts within seconds, decides by `decision`, never works itself."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from mastodon_assets.automation.decision import Ask, RefreshFacts, decide_refresh
from mastodon_assets.automation.jobs import LANE, refresh_job
from mastodon_assets.errors import PlatformError
from mastodon_assets.resources.settings import SettingsResource
from mastodon_assets.settings import Settings

# Read back from failed runs, to tell a new reason to refresh from the one that failed.
TARGET_TAG = "mastodon_assets/target"

_IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_RUNS_LOOKED_AT = 20


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
    try:
        facts = read_facts(context.instance, settings.load())
    except PlatformError as error:
        return dg.SkipReason(str(error))
    decision = decide_refresh(facts)
    if not isinstance(decision, Ask):
        return dg.SkipReason(decision.reason)
    end_offsets = {str(partition): end for partition, end in sorted(facts.end_offsets.items())}
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=decision.run_key, tags={**LANE, TARGET_TAG: facts.target_key})
        ],
        asset_events=[
            dg.AssetObservation(
                "mastodon_stream",
                description=decision.reason,
                metadata={
                    "end_offsets": dg.MetadataValue.json(end_offsets),
                    "messages_ahead_of_tables": facts.lag,
                },
            )
        ],
    )


def read_facts(instance: dg.DagsterInstance, settings: Settings) -> RefreshFacts:
    """What the decision needs, from Kafka, PostgreSQL and Dagster; each bounded by seconds.

    Raises: PlatformError with the reason where one of them does not answer.
    """
    from mastodon_assets.automation.progress import shown_state
    from mastodon_assets.toots.ledger import lag
    from mastodon_assets.toots.topics import read_topic

    topic = read_topic(settings.kafka_servers, settings.kafka_topic, timeout=3)
    shown = shown_state(settings)
    records = instance.get_run_records(
        dg.RunsFilter(job_name=refresh_job.name), limit=_RUNS_LOOKED_AT
    )
    failed = []
    for record in records:
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            break
        failed.append(record)
    by_hand = instance.get_runs(dg.RunsFilter(statuses=_IN_FLIGHT), limit=1)
    return RefreshFacts(
        now=datetime.now(UTC),
        lag=lag(shown.ledger, topic.end),
        end_offsets=topic.end,
        toots_version=shown.toots_version,
        shown_version=shown.shown_version,
        champion=shown.champion,
        shown_champion=shown.shown_champion,
        run_in_flight=by_hand[0].run_id[:8] if by_hand else None,
        last_asked_at=records[0].create_timestamp.astimezone(UTC) if records else None,
        failures=len(failed),
        failed_target=failed[0].dagster_run.tags.get(TARGET_TAG) if failed else None,
        min_interval=timedelta(seconds=settings.refresh_min_seconds),
    )
