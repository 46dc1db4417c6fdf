"""The command that writes posts to files: `export`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mastodon_assets.cli.common import AsJson
from mastodon_assets.cli.console import print_json, print_line
from mastodon_assets.config.settings import load_settings

_DAY = ["%Y-%m-%d"]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.command(rich_help_panel=panel)(export)


def export(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the files; created if missing.")
    ],
    first: Annotated[
        datetime,
        typer.Option("--from", formats=_DAY, metavar="DAY", help="First day, UTC: 2026-11-20."),
    ],
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=_DAY, metavar="DAY", help="Last day; by default the first."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write posts, hashtags, mentions and links of whole days to Parquet files.

    DATABASE_URL must log in as masto_moderator, or as a role that may do more. Each table has a
    folder with one file per day; all join by `id`. A file that exists is replaced.

    The files hold texts and names, and posts that are deleted later stay in them: protect them, and
    write them again or delete them when a purge asks for it.
    """
    from mastodon_assets.reports.post_export import export_posts

    until = last or first
    if until < first:
        raise typer.BadParameter(f"--to {until:%Y-%m-%d} is before --from {first:%Y-%m-%d}")
    if until.date() > datetime.now(UTC).date():
        option = "--from" if last is None else "--to"
        raise typer.BadParameter(f"{option} {until:%Y-%m-%d} is in the future")
    days = export_posts(load_settings().postgres_url, folder, first.date(), until.date())
    if as_json:
        print_json([{"day": day.day.isoformat(), **day.rows} for day in days])
        return
    for day in days:
        counts = ", ".join(f"{count:,} {name}" for name, count in day.rows.items())
        print_line(f"{day.day}  {counts}")
