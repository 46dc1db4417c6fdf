"""The jobs, the nightly schedule, and which runs are ours."""

from collections.abc import Set

import dagster as dg

from mastodon_assets.orchestration.backups import backup_job

# A second guard besides the sensor's own: runs started by hand or by a schedule queue behind the
# run that holds their lane. Training has a lane of its own, because refreshes must not wait for it.
LANE = {"lane": "toots"}
MODEL_LANE = {"lane": "model"}

_MODEL = dg.AssetSelection.groups("model")
_TOPIC_CHECK = dg.AssetCheckKey(dg.AssetKey("mastodon_stream"), "no_unread_message_is_lost")

refresh_job = dg.define_asset_job(
    "refresh_job",
    # Topics are not materialized, but checked.
    selection=(dg.AssetSelection.all() - _MODEL) | dg.AssetSelection.checks(_TOPIC_CHECK),
    tags=LANE,
    description="Bring everything but the model up to date: read Kafka, then batch tables,"
    " engagement, scores, charts and CSV files.",
)
engagement_job = dg.define_asset_job(
    "engagement_job",
    selection=dg.AssetSelection.groups("engagement"),
    tags=LANE,
    description="Read favourites, boosts and replies of posts again when a reading is due.",
)
train_job = dg.define_asset_job(
    "train_job",
    selection=_MODEL,
    tags=MODEL_LANE,
    description="Train the model if corpus, code or parameters changed. A refresh follows if there"
    " is a new champion.",
)
# Dagster's job name for assets selected by hand, on the web page or on the command line.
BY_HAND = "__ASSET_JOB"
IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

JOBS = (refresh_job, engagement_job, train_job, backup_job)

nightly_training_schedule = dg.ScheduleDefinition(
    name="nightly_training_schedule",
    job=train_job,
    cron_schedule="0 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs train_job each night at 03:00 UTC. A model of the same corpus, code and"
    " parameters is not trained again.",
)


def is_ours(run: dg.DagsterRun, assets: Set[dg.AssetKey]) -> bool:
    """Return whether the run is of one of our jobs, or of `assets` selected by hand.

    Other projects may use the instance as well.
    """
    if run.job_name != BY_HAND:
        return run.job_name in {job.name for job in JOBS}
    checked = {key.asset_key for key in run.asset_check_selection or ()}
    return not assets.isdisjoint({*(run.asset_selection or ()), *checked})
