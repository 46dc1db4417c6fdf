"""The code location: assets, checks, jobs, schedules, sensor and resources put together."""

import gc
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import dagster as dg

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.orchestration.assets.batch import batch_assets
from mastodon_assets.orchestration.assets.checks import table_checks, topic_checks
from mastodon_assets.orchestration.assets.common import with_common_parts
from mastodon_assets.orchestration.assets.drift import scores_have_not_drifted
from mastodon_assets.orchestration.assets.engagement import toots_engagement
from mastodon_assets.orchestration.assets.hourly import answer_views, hourly_checks, hourly_tables
from mastodon_assets.orchestration.assets.reports import chart_assets, export_assets
from mastodon_assets.orchestration.assets.sentiment import (
    sentiment_corpus,
    sentiment_pipeline_model,
    toots_sentiment,
    v_sentiment_daily,
)
from mastodon_assets.orchestration.assets.stream import (
    ingest_assets,
    mastodon_errors,
    mastodon_stream,
)
from mastodon_assets.orchestration.jobs import JOBS, nightly_training_schedule
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.orchestration.schedules import backup_schedule, engagement_schedule
from mastodon_assets.orchestration.sensors import (
    alert_sensor,
    mastodon_stream_sensor,
    retention_sensor,
)


def build_definitions(
    *,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = None,
    owners: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> dg.Definitions:
    """Build the code location; each call returns a new one.

    Steps run in one process by default, because they share one JVM: starting one per step costs
    more than parallel steps save.

    Args:
        resources: Replacements for the resources `settings` and `spark`, by key.
        executor: Replacement for the executor.
        owners: Owners of all assets.
        links: Names and addresses of other pages.
    """
    return dg.Definitions(
        assets=with_common_parts(
            [
                mastodon_stream,
                mastodon_errors,
                ingest_assets,
                *batch_assets,
                sentiment_corpus,
                sentiment_pipeline_model,
                toots_sentiment,
                v_sentiment_daily,
                toots_engagement,
                hourly_tables,
                answer_views,
                *chart_assets,
                *export_assets,
            ],
            owners=owners,
            links=links,
        ),
        asset_checks=[*topic_checks, *table_checks, *hourly_checks, scores_have_not_drifted],
        jobs=JOBS,
        schedules=[nightly_training_schedule, engagement_schedule, backup_schedule],
        sensors=[mastodon_stream_sensor, retention_sensor, alert_sensor],
        resources={"settings": SettingsResource(), "spark": SparkResource(), **(resources or {})},
        executor=executor or dg.in_process_executor,
        # Dagster logs each of its events at DEBUG, some 300 lines per refresh.
        loggers={"console": dg.colored_console_logger.configured({"log_level": "INFO"})},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return what `-m mastodon_assets.definitions` and `workspace.yaml` load."""
    return load_once()


@cache
def load_once() -> dg.Definitions:
    """Build the code location by the settings; Dagster asks for it five times per run."""
    _collect_garbage_less_often()
    try:
        settings = load_settings()
    except SettingsError:
        # Runs and sensors report it; the page must still load.
        return build_definitions()
    owners = [each.strip() for each in settings.asset_owners.split(",") if each.strip()]
    return build_definitions(owners=owners, links=_links(settings))


def _collect_garbage_less_often() -> None:
    """Spare Python's collector the objects of Dagster and of the assets, which are never garbage.

    It passes through them again and again, which was an eighth of a run's CPU time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _links(settings: Settings) -> dict[str, str]:
    """Return the pages of other programs that the settings name."""
    links = {"dashboard": settings.dashboard_page}
    if settings.spark_ui_port is not None:
        links["spark_page"] = f"http://127.0.0.1:{settings.spark_ui_port}"
    return links
