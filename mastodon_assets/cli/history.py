"""Commands about what was read before: `replay` and `rebuild`.

What belongs here: their options and what they print. `cli` registers them.
"""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from mastodon_assets.cli.console import report as _report
from mastodon_assets.config.settings import load_settings

_out = Console(highlight=False, emoji=False, soft_wrap=True)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(replay)
    app.command()(rebuild)


def replay(
    partition: Annotated[
        int | None, typer.Option(min=0, help="Of this partition alone.", metavar="P")
    ] = None,
    start: Annotated[
        int | None,
        typer.Option("--from", min=0, help="First offset; the earliest held without it."),
    ] = None,
    end: Annotated[
        int | None,
        typer.Option("--to", min=0, help="Offset after the last; all that was read without it."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Read messages once more that are in the tables already. Twice changes nothing.

    What is missing comes back, and messages that the contract refused are put through today's
    code. A stream may run meanwhile; where the tables are in the topic does not change.
    """
    from mastodon_assets.spark.session import ShortLivedSession
    from mastodon_assets.stream.replay import replay as run_replay
    from mastodon_assets.warehouse.migrate import migrate

    if partition is None and (start is not None or end is not None):
        raise typer.BadParameter("--from and --to are offsets of one partition: name --partition")
    settings = load_settings()
    migrate(settings.postgres_url)
    with ShortLivedSession(settings, _report) as session:
        summary = run_replay(
            session, settings, partition=partition, start=start, end=end, report=_report
        )
    if as_json:
        ranges = {str(number): list(range_) for number, range_ in summary.ranges.items()}
        document = {"topic": summary.topic, "ranges": ranges, **asdict(summary.counts)}
        sys.stdout.write(json.dumps(document) + "\n")
        return
    _out.print(f"{summary.counts.messages:,} messages read again")
    for name, count in asdict(summary.counts).items():
        _out.print(f"  {name:<40}{count:>12,}")


def rebuild(
    tables: Annotated[
        list[str], typer.Argument(help="Names of tables, or all.", metavar="TABLE...|all")
    ],
    as_json: _Json = False,
) -> None:
    """Make tables anew from toots_raw: windows, batch tables, scores, and what is counted of them.

    Says of each how many rows were not as they should be; those alone are written.
    """
    from mastodon_assets.operations.rebuild import REBUILDS
    from mastodon_assets.operations.rebuild import rebuild as run_rebuild
    from mastodon_assets.spark.session import ShortLivedSession
    from mastodon_assets.warehouse.migrate import migrate

    names = list(REBUILDS) if tables == ["all"] else tables
    if unknown := [name for name in names if name not in REBUILDS]:
        raise typer.BadParameter(f"no such table: {unknown[0]}; known: {', '.join(REBUILDS)}, all")
    settings = load_settings()
    migrate(settings.postgres_url)
    changed = {}
    with ShortLivedSession(settings, _report) as session:
        for name, rows in run_rebuild(session, settings, names, _report):
            changed[name] = rows
            if not as_json:
                _out.print(f"  {name:<40}{rows:>12,} rows changed")
    if as_json:
        sys.stdout.write(json.dumps(changed) + "\n")
