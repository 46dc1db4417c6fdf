"""Commands for whoever keeps the platform running: `rejected …`, `purge` and `doctor`.

What belongs here: their options and what they print. `cli` registers them.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mastodon_assets.config.settings import load_settings

if TYPE_CHECKING:
    from mastodon_assets.contract.dead_letter import DeadLetter, ReplaySummary
    from mastodon_assets.operations.purge import Entry

_SHOWN_CHARACTERS = 60
_SHOWN_REASONS = 20

rejected_app = typer.Typer(
    help="Dead letters: messages the tables refused, and posts that could not be published."
)
_out = Console(highlight=False, emoji=False)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
_Reason = Annotated[
    str, typer.Option("--reason", help="Only those whose reason contains this, in any case.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(rejected_app, name="rejected")
    app.command()(doctor)
    app.command()(purge)


def doctor(as_json: _Json = False) -> None:
    """Look at settings, Java, disk, Kafka, PostgreSQL and the Mastodon server; say what to do.

    Green is well, yellow works but is worth a look, red does not work: then the exit status is 1.
    """
    from mastodon_assets.cli.console import escaped
    from mastodon_assets.operations.doctor import diagnose

    findings = diagnose()
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        for finding in findings:
            line = f"{finding.name}: {finding.text}"
            if finding.advice:
                line += f"; {finding.advice}"
            shown = escaped(line.encode("utf-8", "replace"))
            word = Text(f"{finding.level:<7}", style=finding.level)
            _out.print(word.append(shown, style="default"), soft_wrap=True)
    if any(finding.level == "red" for finding in findings):
        raise typer.Exit(1)


def purge(
    account: Annotated[
        str | None, typer.Option("--account", help="Who withdraws.", metavar="USER@DOMAIN")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="Which server: its accounts' posts and all that was read from it.",
            metavar="DOMAIN",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Take it off the list: consent was given again."),
    ] = False,
    show_list: Annotated[
        bool, typer.Option("--list", help="When accounts and servers withdrew; not which.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Remove everything of an account or a server, and let nothing of it in again.

    Rows and what derives from them, dead letters, and whatever Kafka or a recording brings later.

    Charts and files made before count it until the next refresh, which the sensor starts.
    """
    from mastodon_assets.operations import purge
    from mastodon_assets.warehouse.migrate import migrate

    if (account is not None) + (server is not None) + show_list != 1:
        raise typer.BadParameter("give one of --account, --server and --list")
    settings = load_settings()
    migrate(settings.postgres_url)
    if show_list:
        _print_entries(purge.entries(settings), as_json)
        return
    if account is not None:
        who = purge.account(account)
    else:
        assert server is not None, "checked above"
        who = purge.server(server)
    if undo:
        was_listed = purge.undo(settings, who)
        if as_json:
            sys.stdout.write(json.dumps({"was_listed": was_listed}) + "\n")
        else:
            _out.print("taken off the list" if was_listed else "did not stand in the list")
        return
    if not (yes or dry_run):
        typer.confirm(f"Remove all of {who.name} for good?", abort=True, err=True)
    removed = purge.purge(settings, who, dry_run=dry_run)
    if as_json:
        sys.stdout.write(json.dumps({"removed": dict(removed), "dry_run": dry_run}) + "\n")
        return
    for place, count in removed.items():
        _out.print(Text(f"{count:>9,}  {place}"))
    if dry_run:
        _out.print("would be removed; nothing was")
    else:
        _out.print(
            "removed, and entered in the list of the withdrawn. Charts and files made before count"
            " it until the next refresh. Messages stay in Kafka as long as it keeps them (the"
            " embedded one for good); none of them is stored again.",
            soft_wrap=True,
        )


@rejected_app.command("list")
def list_rejected(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    reason: _Reason = "",
    as_json: _Json = False,
) -> None:
    """The newest dead letters, and how many there are of each reason."""
    from mastodon_assets.contract.dead_letter import newest_first
    from mastodon_assets.ingest.dead_letters import newest_errors
    from mastodon_assets.stream.dead_letters import count_rejected, newest_rejected

    settings = load_settings()
    rejected = newest_rejected(settings.postgres_url, reason=reason, limit=limit)
    counts = count_rejected(settings.postgres_url, reason=reason)
    errors, error_counts = newest_errors(settings, reason=reason, limit=limit)
    dead_letters = newest_first([*rejected, *errors])[:limit]
    if as_json:
        document = {
            "dead_letters": [_described(dead_letter) for dead_letter in dead_letters],
            "reasons": dict((counts + error_counts).most_common()),
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _print_letters(dead_letters, counts + error_counts)


@rejected_app.command("show")
def show_rejected(
    topic: Annotated[str, typer.Argument(help="As `list` shows it.")],
    partition: Annotated[int, typer.Argument(min=0)],
    offset: Annotated[int, typer.Argument(min=0)],
    raw: Annotated[
        bool, typer.Option("--raw", help="The payload's bytes alone, as they are.")
    ] = False,
) -> None:
    """All of one dead dead_letter."""
    from mastodon_assets.cli.console import escaped
    from mastodon_assets.ingest.dead_letters import read_error
    from mastodon_assets.stream.dead_letters import read_rejected

    settings = load_settings()
    if topic == settings.kafka_errors_topic:
        dead_letter = read_error(settings, partition, offset)
    else:
        dead_letter = read_rejected(settings.postgres_url, topic, partition, offset)
    if raw:
        sys.stdout.buffer.write(dead_letter.payload or b"")
        sys.stdout.buffer.flush()
        return
    lines = {
        "place": _place(dead_letter),
        "refused at": _time(dead_letter),
        "reason": escaped(dead_letter.reason.encode("utf-8", "replace")),
        "key": "none" if dead_letter.key is None else escaped(dead_letter.key),
        "payload": "none" if dead_letter.payload is None else escaped(dead_letter.payload),
    }
    for name, value in lines.items():
        _out.print(Text(f"{name:<11} {value}"), soft_wrap=True)


@rejected_app.command("replay")
def replay(
    reason: _Reason = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Publish at most so many of each kind.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would become of them.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Posts that could not be published: begin with the oldest kept one."
        ),
    ] = False,
) -> None:
    """Put dead letters through today's code and publish those that pass. Twice is harmless.

    A refused message that passes leaves the table of the refused; the others stay. Posts that
    could not be published stay in their topic, and the next replay goes on behind them; with
    --reason it does not, because it leaves others out.
    """
    from mastodon_assets.ingest.dead_letters import replay_errors
    from mastodon_assets.kafka.publisher import publishing
    from mastodon_assets.stream.dead_letters import replay_rejected
    from mastodon_assets.warehouse.migrate import migrate

    settings = load_settings()
    migrate(settings.postgres_url)
    with publishing(settings) as opened:
        publisher = None if dry_run else opened
        rejected = replay_rejected(
            settings.postgres_url,
            publisher,
            reason=reason,
            limit=limit,
            withdrawn_key=settings.suppression_key,
        )
        errors = replay_errors(settings, publisher, reason=reason, limit=limit, again=again)
    verb = "would be published" if dry_run else "published"
    _print_replay(f"refused by the tables: {rejected.published} {verb}", rejected)
    _print_replay(f"not published by the ingester: {errors.published} {verb}", errors)


def _print_entries(entries: "Sequence[Entry]", as_json: bool) -> None:
    if as_json:
        document = [
            {"kind": entry.kind, "withdrawn_at": entry.withdrawn_at.isoformat()}
            for entry in entries
        ]
        sys.stdout.write(json.dumps(document) + "\n")
        return
    for entry in entries:
        _out.print(f"{entry.withdrawn_at:%Y-%m-%d %H:%M:%S}Z  {entry.kind}")
    _out.print(f"{len(entries):,} withdrawn")


def _described(dead_letter: "DeadLetter") -> dict[str, object]:
    return {
        "topic": dead_letter.topic,
        "partition": dead_letter.partition,
        "offset": dead_letter.offset,
        "at": dead_letter.at and dead_letter.at.isoformat(),
        "reason": dead_letter.reason,
        "payload": _shortened(dead_letter),
    }


def _print_letters(dead_letters: "Sequence[DeadLetter]", counts: Counter[str]) -> None:
    from mastodon_assets.cli.console import escaped

    table = Table("topic partition offset", "refused at", "reason", "payload", box=None)
    for dead_letter in dead_letters:
        reason = escaped(dead_letter.reason.encode("utf-8", "replace"))
        cells = (_place(dead_letter), _time(dead_letter), reason, _shortened(dead_letter) or "none")
        # Text, because what stands in brackets is no markup of ours.
        table.add_row(*(Text(cell) for cell in cells))
    if dead_letters:
        _out.print(table)
    _out.print(f"{counts.total():,} dead letters")
    for reason, count in counts.most_common(_SHOWN_REASONS):
        shown = escaped(reason.encode("utf-8", "replace"))
        _out.print(Text(f"{count:>9,}  {shown}"), soft_wrap=True)
    if len(counts) > _SHOWN_REASONS:
        _out.print(f"           and {len(counts) - _SHOWN_REASONS} other reasons: --json has all")


def _print_replay(title: str, summary: "ReplaySummary") -> None:
    _out.print(Text(f"{title}, {summary.kept.total()} not"), soft_wrap=True)
    for reason, count in summary.kept.most_common(_SHOWN_REASONS):
        _out.print(Text(f"{count:>9,}  {reason}"), soft_wrap=True)


def _place(dead_letter: "DeadLetter") -> str:
    return f"{dead_letter.topic} {dead_letter.partition} {dead_letter.offset}"


def _time(dead_letter: "DeadLetter") -> str:
    return "unknown" if dead_letter.at is None else f"{dead_letter.at:%Y-%m-%d %H:%M:%S}Z"


def _shortened(dead_letter: "DeadLetter") -> str | None:
    from mastodon_assets.cli.console import escaped

    if dead_letter.payload is None:
        return None
    # A character has four bytes at most.
    start = escaped(dead_letter.payload[: 4 * _SHOWN_CHARACTERS])[:_SHOWN_CHARACTERS]
    return start if start == escaped(dead_letter.payload) else f"{start}…"
