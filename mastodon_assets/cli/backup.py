"""Commands for a copy that outlives the disk: `backup` and `restore`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mastodon_assets.cli.common import AsJson, flag
from mastodon_assets.cli.console import print_json, print_line, report
from mastodon_assets.config.settings import load_settings

if TYPE_CHECKING:
    from mastodon_assets.backup.save import Backup


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    for command in (backup, restore):
        app.command(rich_help_panel=panel)(command)


def backup(
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The folder of backups; default: BACKUP_DIR.", metavar="FOLDER"),
    ] = None,
    check: Annotated[
        bool,
        flag("--check", "Restore the new backup into a database of its own and compare."),
    ] = False,
    history: Annotated[
        bool, flag("--history", "Also save Dagster's runs, events and ticks (of DAGSTER_HOME).")
    ] = False,
    show_list: Annotated[bool, flag("--list", "Show the backups instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Save tables, models, settings and the suppression list while everything runs.

    The backup is a new folder, for its owner only. It has no secret besides the key of the
    suppression list; keep MASTODON_HANDLE_KEY and passwords elsewhere. Kafka's messages are not
    in it.

    A backup older than BACKUP_KEEP_DAYS is removed, but never the newest.
    """
    from mastodon_assets.backup import save as operation
    from mastodon_assets.backup.restore import check_restorable
    from mastodon_assets.orchestration.dagster_home import dagster_home

    settings = load_settings()
    target = to or operation.backup_folder(settings)
    if show_list:
        _print_backups(operation.find_backups(target), as_json)
        return
    home = dagster_home(settings.mastodon_assets_home) if history else None
    made = operation.make_backup(settings, target, report, dagster_home=home)
    if check:
        check_restorable(settings, made, report)
    operation.remove_old_backups(target, settings.backup_keep_days, datetime.now(UTC))
    if as_json:
        print_json({"folder": str(made.folder), "bytes": made.bytes, **made.manifest})
        return
    posts, models = made.manifest["rows"]["toots_raw"], len(made.manifest["models"])
    print_line(f"{made.folder}: {made.bytes / 2**20:,.1f} MiB, posts {posts:,}, models {models}")


def restore(
    folder: Annotated[Path, typer.Argument(help="A backup.", metavar="FOLDER")],
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty database.

    Whoever was purged after the backup is removed again, by the list next to the backups. The
    stream then reads on from where the backup was, as far as Kafka still holds it.
    """
    from mastodon_assets.backup.restore import restore as operation
    from mastodon_assets.orchestration.dagster_home import dagster_home

    settings = load_settings()
    result = operation(
        settings, folder, report, dagster_home=lambda: dagster_home(settings.mastodon_assets_home)
    )
    if as_json:
        print_json(
            {
                "rows": result.rows,
                "removed": result.removed,
                "models": result.models,
                "notes": result.notes,
            }
        )
        return
    for table, count in result.rows.items():
        if count:
            print_line(f"{count:>11,}  {table}")
    for table, count in result.removed.items():
        if count:
            print_line(f"{count:>11,}  removed again from {table}")
    for note in result.notes:
        print_line(f"note: {note}")
    print_line("restored; next: mastodon-assets run")


def _print_backups(backups: "list[Backup]", as_json: bool) -> None:
    if as_json:
        print_json([{"folder": str(each.folder), **each.manifest} for each in backups])
        return
    for each in backups:
        print_line(
            f"{each.made_at:%Y-%m-%d %H:%M:%S}Z  {each.bytes / 2**20:>9,.1f} MiB"
            f"  {each.manifest['rows']['toots_raw']:>11,} posts  {each.folder}"
        )
    print_line(f"{len(backups):,} backup{'' if len(backups) == 1 else 's'}")
