"""The jobs and the nightly schedule."""

import dagster as dg

# A second guard besides the sensor's own: runs started by hand or by a schedule queue behind the
# run that holds the lane.
LANE = {"lane": "toots"}

_MODEL = dg.AssetSelection.groups("model")

refresh_job = dg.define_asset_job(
    "refresh_job",
    selection=dg.AssetSelection.all() - _MODEL,
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
    tags=LANE,
    description="Train the model if corpus, code or parameters changed. A refresh follows if there"
    " is a new champion.",
)
nightly_training_schedule = dg.ScheduleDefinition(
    name="nightly_training_schedule",
    job=train_job,
    cron_schedule="0 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs train_job each night at 03:00 UTC. A model of the same corpus, code and"
    " parameters is not trained again.",
)
