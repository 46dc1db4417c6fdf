"""The command for people who do not want to be in the data: `purge`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mastodon_assets.cli.common import AsJson, flag
from mastodon_assets.cli.console import print_json, print_line
from mastodon_assets.config.settings import load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.files import write_atomically

if TYPE_CHECKING:
    from mastodon_assets.operations.purge import Entry, Subject


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.command(rich_help_panel=panel)(purge)


def purge(
    account: Annotated[
        str | None,
        typer.Option("--account", help="Remove this account's posts.", metavar="USER@DOMAIN"),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="Remove the posts of this server's accounts and all that was read from it.",
            metavar="DOMAIN",
        ),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="Remove all that a file names, one per line.", metavar="FILE"),
    ] = None,
    yes: Annotated[bool, flag("--yes", "Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Only count what would be removed.")] = False,
    undo: Annotated[
        bool,
        flag("--undo", "Take it off the suppression list: its posts may be read again."),
    ] = False,
    show_list: Annotated[
        bool,
        flag("--list", "Show when entries were added, without names."),
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write the suppression list to a file.", metavar="FILE"),
    ] = None,
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import", help="Add an exported list, made with the same key.", metavar="FILE"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove all data of an account or a server, and keep it out.

    Removes its rows and dead letters, and puts it on the suppression list: whatever Kafka or a
    recording brings later is not stored. Kafka cannot remove single messages, so all messages
    that the tables have already read are deleted from the topic.

    Charts and files that exist already count it until the next refresh, which the sensor starts.
    """
    from mastodon_assets.operations import purge as operation
    from mastodon_assets.warehouse.migrate import migrate
    from mastodon_assets.warehouse.suppression_file import export_list, import_list

    chosen = [each for each in (account, server, from_file, export, import_) if each is not None]
    if len(chosen) + show_list != 1:
        raise typer.BadParameter(
            "give one of --account, --server, --from, --list, --export and --import"
        )
    if undo and dry_run:
        raise typer.BadParameter("give one of --undo and --dry-run")
    if (undo or dry_run) and not any((account, server, from_file)):
        raise typer.BadParameter("--undo and --dry-run go with --account, --server or --from")
    settings = load_settings()
    migrate(settings.postgres_url)
    if show_list:
        _print_entries(operation.entries(settings), as_json)
        return
    if export is not None:
        _export(export, export_list(settings))
        return
    if import_ is not None:
        _print_imported(import_list(settings, _text_of(import_)), as_json)
        return
    who = _subjects(account, server, from_file)
    if undo:
        were_listed = [operation.undo(settings, each) for each in who]
        _print_undone(any(were_listed), as_json)
        return
    if not (yes or dry_run):
        whom = who[0].name if len(who) == 1 else f"{len(who)} accounts and servers"
        typer.confirm(f"Remove all data of {whom} for good?", abort=True, err=True)
    removed = operation.purge(settings, *who, dry_run=dry_run)
    if as_json:
        print_json({"removed": dict(removed), "dry_run": dry_run})
        return
    for place, count in removed.items():
        print_line(f"{count:>9,}  {place}")
    if dry_run:
        print_line("These would be removed; nothing was changed.")
    else:
        print_line(
            "Removed, and added to the suppression list. Charts and files count it until the next"
            " refresh. Messages that the tables have not read yet stay in Kafka until the next"
            " purge, or as long as it keeps them; none of them is stored."
        )


def _subjects(
    account: str | None, server: str | None, from_file: Path | None
) -> "Sequence[Subject]":
    from mastodon_assets.operations import purge as operation

    if account is not None:
        return [operation.account(account)]
    if server is not None:
        return [operation.server(server)]
    assert from_file is not None, "checked by the caller"
    return operation.subjects_of_file(from_file)


def _export(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise SettingsError(f"--export {path}: {error.strerror}; name another file") from error
    print_line(f"{len(text.splitlines()):,} entries written to {path}; keep WITHDRAWN_KEY with it")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"--import {path}: {reason}; name a readable file") from error


def _print_imported(count: int, as_json: bool) -> None:
    if as_json:
        print_json({"added": count})
    else:
        print_line(f"{count:,} entries added to the suppression list")


def _print_undone(was_listed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"was_listed": was_listed})
    elif was_listed:
        print_line("taken off the suppression list")
    else:
        print_line("it was not on the suppression list")


def _print_entries(entries: "Sequence[Entry]", as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"kind": entry.kind, "withdrawn_at": entry.withdrawn_at.isoformat()}
                for entry in entries
            ]
        )
        return
    for entry in entries:
        print_line(f"{entry.withdrawn_at:%Y-%m-%d %H:%M:%S}Z  {entry.kind}")
    print_line(f"{len(entries):,} on the suppression list")
