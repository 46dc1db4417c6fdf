"""The schedule that requests a run only if there is something to do."""

import dagster as dg

from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.jobs import engagement_job
from mastodon_assets.orchestration.resources import SettingsResource


@dg.schedule(
    job=engagement_job,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs engagement_job when a reading is due. Each refresh makes the due readings as"
    " well; this schedule covers the time without new messages.",
)
def engagement_schedule(settings: SettingsResource) -> dg.RunRequest | dg.SkipReason:
    """Request `engagement_job` if a server is configured and a reading is due."""
    from mastodon_assets.ingest.engagement import is_any_due

    try:
        loaded = settings.load()
        if loaded.mastodon_api_base_url is None:
            return dg.SkipReason("no server to read from; set MASTODON_API_BASE_URL")
        if not is_any_due(loaded):
            return dg.SkipReason("no reading is due")
    except PlatformError as error:
        return dg.SkipReason(str(error))
    return dg.RunRequest()
