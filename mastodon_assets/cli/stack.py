"""Commands that start, stop and watch the platform on this machine.

What belongs here: `demo`, `run`, `up`, `down`, `status`, `doctor`, `ui` and `dashboard`.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mastodon_assets.cli.common import (
    AsJson,
    Days,
    Seed,
    Toots,
    address,
    flag,
    port_option,
    refuse_taken_port,
)
from mastodon_assets.cli.console import (
    escaped,
    in_one_line,
    print_counts,
    print_json,
    print_line,
    print_table,
    report,
)
from mastodon_assets.cli.feed import print_ingested
from mastodon_assets.cli.interrupts import seconds_to_end
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import PlatformError

if TYPE_CHECKING:
    from mastodon_assets.ingest.source_states import SourceStatus
    from mastodon_assets.operations.demo import DemoResult

logger = logging.getLogger(__name__)

_DEMO_PORT = 3000
# Servers that this process started are stopped in good order.
_SECONDS_TO_STOP_SERVERS = 60.0


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    for command in (demo, run, up, down, status, doctor, ui, dashboard):
        app.command(rich_help_panel=panel)(command)


def demo(
    toots: Toots = 2000,
    days: Days = 7,
    seed: Seed = 1,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Use these recorded status objects instead, one per line.",
            metavar="FILE",
        ),
    ] = None,
    keep: Annotated[bool, flag("--keep", "Leave Kafka and PostgreSQL running.")] = False,
    ui: Annotated[
        bool,
        flag(
            "--ui", f"Serve Dagster's web page (port {_DEMO_PORT}) and the dashboard on the result."
        ),
    ] = False,
) -> None:
    """Run everything on this machine with simulated data.

    Starts a simulated Mastodon server, Kafka, Spark and PostgreSQL, and draws the charts. Needs no
    account and no settings. Takes about two minutes; the first run also downloads 60 MB of
    programs.

    Charts, CSV files and the model are written to the state folder (MASTODON_ASSETS_HOME), never
    over those of real data.
    """
    from mastodon_assets.operations.demo import running_demo, show_web_page

    if ui:
        refuse_taken_port(_DEMO_PORT, "mastodon-assets ui --port")
        refuse_taken_port(load_settings().dashboard_port, "DASHBOARD_PORT")
    with (
        seconds_to_end(_SECONDS_TO_STOP_SERVERS),
        running_demo(
            toots=toots, days=days, seed=seed, from_file=from_file, keep=keep, report=report
        ) as result,
    ):
        _print_demo(result)
        if ui:
            with suppress(KeyboardInterrupt):
                show_web_page(result.settings, _DEMO_PORT, report)
    if keep:
        print_line()
        print_line("Kafka and PostgreSQL are running.")
        print_line("  look around:      ", ("mastodon-assets ui", "bold"))
        print_line("  stop and remove:  ", ("mastodon-assets down --wipe", "bold"))


def run(port: Annotated[int, port_option("Port of the web page.")] = 3000) -> None:
    """Read posts, fill the tables, serve web page and dashboard, until stopped (Ctrl-C).

    Runs ingest, stream, ui and dashboard together, with their lines in one log, and restarts what
    ends. The embedded Kafka and PostgreSQL are started as well, unless the settings name other
    servers.
    """
    from mastodon_assets.operations.run import run as run_all

    settings = load_settings()
    refuse_taken_port(port, "--port")
    refuse_taken_port(settings.dashboard_port, "DASHBOARD_PORT")
    with seconds_to_end(_SECONDS_TO_STOP_SERVERS):
        run_all(settings, port, report)


def up(
    upgrade: Annotated[
        bool,
        flag(
            "--upgrade",
            "Also upgrade data that an older major version of PostgreSQL made, and Kafka's metadata"
            " version.",
        ),
    ] = False,
) -> None:
    """Start the embedded Kafka and PostgreSQL, and create topics and tables.

    Their addresses are written to connection.json, where the other commands find them. The key of
    the suppression list is written once, to withdrawn.key. Safe to repeat.

    With --upgrade, PostgreSQL's old data folder is kept; Kafka's metadata cannot be read by an
    older Kafka afterwards.
    """
    from mastodon_assets.operations.servers import start_servers

    settings = load_settings()
    started = start_servers(settings, report, upgrade=upgrade)
    connection, version = started.connection, started.schema_version
    if started.restored:
        print_line(f"{started.restored:,} entries of the kept suppression list added")
    print_line(f"Kafka       {connection.kafka_bootstrap_servers}")
    print_line(f"PostgreSQL  {address(connection.postgres_url)}, schema version {version}")
    print_line(f"addresses   {settings.mastodon_assets_home / 'connection.json'}")


def down(
    wipe: Annotated[bool, flag("--wipe", "Also remove their data and Dagster's runs.")] = False,
    keep_list: Annotated[
        bool,
        flag(
            "--keep-list",
            "With --wipe: keep the suppression list and its key; the next `up` reads them.",
        ),
    ] = False,
    yes: Annotated[bool, flag("--yes", "Do not ask before data are removed.")] = False,
) -> None:
    """Stop the embedded Kafka and PostgreSQL; keep their data unless --wipe."""
    from mastodon_assets.embedded import stack
    from mastodon_assets.operations.wipe import users_of

    home = load_settings().mastodon_assets_home
    with seconds_to_end(_SECONDS_TO_STOP_SERVERS):
        if wipe:
            _wipe(home, keep_list=keep_list, yes=yes)
            return
        users = users_of(home)
        if not stack.down(home, report=report):
            # Whoever is in the wrong folder must not believe that all is stopped.
            print_line(f"nothing runs in {home.absolute()}")
        elif users:
            logger.warning(
                "%s was in use by %s; these wait for the servers, and `mastodon-assets run` starts"
                " them again: stop it by Ctrl-C, then run this again",
                home.absolute(),
                ", ".join(users),
            )


def _wipe(home: Path, *, keep_list: bool, yes: bool) -> None:
    from mastodon_assets.operations.wipe import check_unused, may_have_list, what_goes, wipe

    check_unused(home)
    if not home.exists():
        print_line(f"nothing to remove: {home.absolute()} does not exist")
        return
    if not (keep_list or yes) and may_have_list(home):
        keep_list = typer.confirm(
            "Keep the suppression list and its key? Posts of those on it would be read again"
            " without them.",
            default=True,
            err=True,
        )
    lines = what_goes(home, keep_list=keep_list)
    if lines and not yes:
        typer.echo("This removes for good:", err=True)
        for line in lines:
            typer.echo(escaped(f"  {line}"), err=True)
        typer.confirm("Go on?", abort=True, err=True)
    if kept := wipe(home, report, keep_list=keep_list):
        print_line(f"{kept:,} entries of the suppression list and its key are kept in {home}")


def status(as_json: AsJson = False) -> None:
    """Show what runs, each source's state, and how far the tables are behind Kafka.

    The exit status is 1 if Kafka or PostgreSQL does not run or does not answer.
    """
    from mastodon_assets.embedded import stack
    from mastodon_assets.orchestration.disk_usage import read_disk_usage

    settings = load_settings()
    own_servers = {
        "Kafka": settings.kafka_bootstrap_servers,
        "PostgreSQL": settings.database_url,
    }
    # The embedded stack has no part in a server of one's own.
    services = [
        service
        for service in stack.status(settings.mastodon_assets_home)
        if not own_servers[service.name]
    ]
    pipeline, problem = _pipeline_state(settings)
    sources = _sources(settings)
    disk = read_disk_usage(settings)
    newest_backup = _newest_backup(settings)
    if as_json:
        print_json(
            {
                "state_folder": str(settings.mastodon_assets_home.absolute()),
                "services": [
                    {"name": each.name, "state": each.state, "detail": each.detail}
                    for each in services
                ],
                "sources": [_described(source) for source in sources],
                "pipeline": pipeline,
                "disk": asdict(disk),
                "newest_backup": newest_backup,
                "problem": problem,
            }
        )
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_row("state folder", escaped(str(settings.mastodon_assets_home.absolute())))
        for service in services:
            table.add_row(service.name, service.state, service.detail)
        for name, value in (pipeline or {}).items():
            table.add_row(name.replace("_", " "), _shown(value))
        if disk.sizes:
            table.add_row("disk", str(disk))
        if settings.backup_dir is not None:
            table.add_row("newest backup", newest_backup or "none yet")
        print_table(table)
        for source in sources:
            print_line(_source_text(source))
        if problem:
            print_line(problem)
    if problem or any(service.state != "running" for service in services):
        raise typer.Exit(1)


def _newest_backup(settings: Settings) -> str | None:
    from mastodon_assets.backup.save import find_backups

    backups = [] if settings.backup_dir is None else find_backups(settings.backup_dir)
    return backups[0].made_at.isoformat(timespec="seconds") if backups else None


def doctor(as_json: AsJson = False) -> None:
    """Check settings, Java, disk, Kafka, PostgreSQL and Mastodon servers.

    Says how to fix what is wrong, and changes nothing.

    Green: works. Yellow: works, but needs attention. Red: does not work; the exit status is 1.
    """
    from mastodon_assets.operations.doctor import diagnose

    findings = diagnose()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            advice = f"; {finding.advice}" if finding.advice else ""
            print_line(
                (f"{finding.level:<7}", finding.level), f"{finding.name}: {finding.text}{advice}"
            )
    if any(finding.level == "red" for finding in findings):
        raise typer.Exit(1)


def ui(
    port: Annotated[int, port_option("Port of the web page on 127.0.0.1.")] = 3000,
) -> None:
    """Serve Dagster's web page, sensors and schedules, until stopped (Ctrl-C)."""
    from mastodon_assets.orchestration.dagster_home import dagster_home
    from mastodon_assets.orchestration.web_server import code_location, serve_web_page

    home = dagster_home(load_settings().mastodon_assets_home)
    refuse_taken_port(port, "--port")
    report(f"starting the web page at http://127.0.0.1:{port}; Ctrl-C stops it")
    with seconds_to_end(_SECONDS_TO_STOP_SERVERS):
        serve_web_page(
            port,
            environment={
                "DAGSTER_DISABLE_TELEMETRY": "1",
                **os.environ,
                "DAGSTER_HOME": str(home),
            },
            target=code_location(),
        )


def dashboard(
    port: Annotated[
        int | None, port_option("Port of the dashboard; DASHBOARD_PORT if not given.")
    ] = None,
) -> None:
    """Serve the dashboard, what the posts say now and over time, until stopped (Ctrl-C).

    It reads aggregates only, as masto_reader if MASTO_READER_PASSWORD is set. The newest posts are
    behind a login with DASHBOARD_PASSWORD; each look at them is written to dashboard-access.log in
    the state folder.
    """
    from mastodon_assets.dashboard.server import serve
    from mastodon_assets.operations.platform_metrics import platform_numbers

    settings = load_settings()
    serve(
        settings,
        settings.dashboard_port if port is None else port,
        settings.dashboard_host,
        metrics=platform_numbers(settings),
    )


def _pipeline_state(settings: Settings) -> tuple[dict[str, Any] | None, str | None]:
    """Return how far the tables are; or None and one line that says why that is not known."""
    from mastodon_assets.kafka.topics import read_topic
    from mastodon_assets.orchestration.refresh_state import shown_state
    from mastodon_assets.stream.ledger import lag
    from mastodon_assets.stream.retention import count_unknown_deletes

    try:
        shown = shown_state(settings)
        topic = read_topic(settings, settings.kafka_topic, timeout=3)
        unknown_deletes = count_unknown_deletes(settings.postgres_url)
    except PlatformError as error:
        return None, in_one_line(str(error))
    ahead = lag(shown.ledger, topic.end)
    since = shown.horizons.posts
    pipeline = {
        "messages_in_kafka": sum(topic.end.values()),
        "messages_ahead_of_tables": ahead,
        "charts_are_current": ahead == 0
        and shown.shown_version == shown.toots_version
        and shown.shown_champions == {shown.champion},
        "champion": shown.champion or "none",
        "posts_kept_since": "always" if since == date.min else since.isoformat(),
        "deletes_of_unknown_posts": unknown_deletes,
    }
    return pipeline, None


def _sources(settings: Settings) -> "list[SourceStatus]":
    """Return an empty list if they cannot be read: `_pipeline_state` says why."""
    from mastodon_assets.ingest.source_states import read_sources

    try:
        return read_sources(settings.postgres_url)
    except PlatformError:
        return []


def _described(source: "SourceStatus") -> dict[str, Any]:
    times = {
        name: value.isoformat()
        for name, value in asdict(source).items()
        if isinstance(value, datetime)
    }
    return asdict(source) | times | {"state": source.present_state(datetime.now(UTC))}


def _source_text(source: "SourceStatus") -> str:
    posted = source.last_post_at
    parts = [
        source.present_state(datetime.now(UTC)),
        "no post yet" if posted is None else f"last post {posted:%Y-%m-%d %H:%M:%S}Z",
        "no cursor" if source.cursor is None else f"cursor {source.cursor}",
        f"{source.open_gaps} open gap{'' if source.open_gaps == 1 else 's'}",
        *([source.detail] if source.detail else []),
    ]
    if source.incomplete_gaps:
        gaps = f"{source.incomplete_gaps} gap{'' if source.incomplete_gaps == 1 else 's'}"
        parts.insert(4, f"{gaps} of the last 7 days not filled completely (see masto.stream_gaps)")
    if source.suspicious:
        accept = f"mastodon-assets sources accept {source.instance}"
        parts.append(f"suspicious: {source.suspicious}; if that is right, run: {accept}")
    return f"{source.instance}/{source.source}: {', '.join(parts)}"


def _shown(value: object) -> Text:
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    return Text(f"{value:,}" if isinstance(value, int) else escaped(str(value)))


def _print_demo(result: "DemoResult") -> None:
    print_line()
    print_line(("Events read from the server", "bold"))
    print_ingested(result.ingested)
    print_line()
    print_line(("Rows of the tables in schema masto", "bold"))
    for rows in _in_groups(result.rows):
        print_counts(rows)
        print_line()
    print_line(("Model that scores", "bold"))
    print_line(f"  {result.champion}")
    for title, paths in (("Charts", result.charts), ("CSV files", result.exports)):
        print_line()
        print_line((title, "bold"))
        for path in paths:
            print_line(f"  {path}")
    print_line()
    print_line(("Seconds", "bold"))
    print_counts({**result.seconds, "in total": sum(result.seconds.values())})


def _in_groups(rows: Mapping[str, int]) -> list[dict[str, int]]:
    """Group posts, batch tables, sentiment and bookkeeping, each in the catalog's order."""
    groups: list[dict[str, int]] = [{}, {}, {}, {}]
    for name, count in rows.items():
        if name == "toots_raw" or name.endswith("_windowed"):
            group = 0
        elif name.startswith("batch_"):
            group = 1
        elif "sentiment" in name:
            group = 2
        else:
            group = 3
        groups[group][name] = count
    return groups
