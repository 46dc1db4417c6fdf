"""The job that makes a backup, tests it, and removes old ones."""

from datetime import UTC, datetime

import dagster as dg

from mastodon_assets.orchestration.resources import SettingsResource


@dg.op(description="Save tables, models, settings and suppression list, and test the result.")
def back_up(context: dg.OpExecutionContext, settings: SettingsResource) -> None:
    """Make a backup in BACKUP_DIR, restore it for a test, and remove old ones."""
    from mastodon_assets.backup.restore import check_restorable
    from mastodon_assets.backup.save import backup_folder, make_backup, remove_old_backups

    loaded = settings.load()
    target = backup_folder(loaded)
    made = make_backup(loaded, target, context.log.info)
    check_restorable(loaded, made, context.log.info)
    removed = remove_old_backups(target, loaded.backup_keep_days, datetime.now(UTC))
    context.log.info("%s: %s bytes; %s old removed", made.folder, made.bytes, len(removed))


@dg.job(
    description="Make a backup in BACKUP_DIR, restore it into a database of its own for a test, and"
    " remove backups older than BACKUP_KEEP_DAYS.",
)
def backup_job() -> None:
    """Run `back_up`."""
    back_up()
