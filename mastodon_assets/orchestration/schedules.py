"""The schedules that request a run only if there is something to do."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from mastodon_assets.errors import PlatformError
from mastodon_assets.orchestration.backups import backup_job
from mastodon_assets.orchestration.jobs import IN_FLIGHT, engagement_job
from mastodon_assets.orchestration.resources import SettingsResource


@dg.schedule(
    job=engagement_job,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs engagement_job when a reading is due. Each refresh makes the due readings as"
    " well; this schedule covers the time without new messages.",
)
def engagement_schedule(
    context: dg.ScheduleEvaluationContext, settings: SettingsResource
) -> dg.RunRequest | dg.SkipReason:
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
    return _unless_at_work(context.instance, engagement_job.name)


@dg.schedule(
    job=backup_job,
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs backup_job if the newest backup is older than BACKUP_EVERY_HOURS.",
)
def backup_schedule(
    context: dg.ScheduleEvaluationContext, settings: SettingsResource
) -> dg.RunRequest | dg.SkipReason:
    """Request `backup_job` if a backup is due."""
    from mastodon_assets.backup.save import backup_folder, find_backups

    try:
        loaded = settings.load()
        if loaded.backup_every_hours is None:
            return dg.SkipReason("no backups are requested; set BACKUP_DIR and BACKUP_EVERY_HOURS")
        backups = find_backups(backup_folder(loaded))
    except PlatformError as error:
        return dg.SkipReason(str(error))
    # A backup that took some minutes must not shift the next one by an hour.
    due = datetime.now(UTC) - timedelta(hours=loaded.backup_every_hours) + timedelta(minutes=30)
    if backups and backups[0].made_at > due:
        return dg.SkipReason(f"the newest backup is of {backups[0].made_at:%Y-%m-%d %H:%M} UTC")
    return _unless_at_work(context.instance, backup_job.name)


def _unless_at_work(instance: dg.DagsterInstance, job: str) -> dg.RunRequest | dg.SkipReason:
    """Request a run of the job, unless one waits or has not ended."""
    if instance.get_runs_count(dg.RunsFilter(job_name=job, statuses=IN_FLIGHT)):
        return dg.SkipReason(f"a run of {job} waits or is at work")
    return dg.RunRequest()
