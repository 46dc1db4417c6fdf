"""The jobs and the nightly schedule."""

import dagster as dg

# A second guard beside the sensor's own: clicks and schedule queue up behind a run of the lane.
LANE = {"lane": "toots"}

_MODEL = dg.AssetSelection.groups("model")

refresh_job = dg.define_asset_job(
    "refresh_job",
    selection=dg.AssetSelection.all() - _MODEL,
    tags=LANE,
    description="Everything but the model: drain Kafka, then batch tables, scores, charts, files.",
)
engagement_job = dg.define_asset_job(
    "engagement_job",
    selection=dg.AssetSelection.groups("engagement"),
    tags=LANE,
    description="Read the toots' favourites, boosts and replies again where that is due.",
)
train_job = dg.define_asset_job(
    "train_job",
    selection=_MODEL,
    tags=LANE,
    description="Train the model if corpus, code or parameters changed; its refresh follows.",
)
nightly_training_schedule = dg.ScheduleDefinition(
    name="nightly_training_schedule",
    job=train_job,
    cron_schedule="0 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Trains each night; a model of the same corpus, code and parameters is kept.",
)
