"""The schedule that looks before it asks."""

import dagster as dg

from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.jobs import engagement_job
from mastodon_assets.orchestration.resources import SettingsResource


@dg.schedule(
    job=engagement_job,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Asks for readings that fell due while no message came: Kafka tells nothing of"
    " them, and with each refresh they are made anyway.",
)
def engagement_schedule(settings: SettingsResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for `engagement_job` where a server is named and a reading is due."""
    from mastodon_assets.ingest.engagement import is_any_due

    try:
        loaded = settings.load()
        if loaded.mastodon_api_base_url is None:
            return dg.SkipReason("no server to read from: MASTODON_API_BASE_URL is not set")
        if not is_any_due(loaded):
            return dg.SkipReason("no reading is due")
    except PlatformError as error:
        return dg.SkipReason(str(error))
    return dg.RunRequest()
