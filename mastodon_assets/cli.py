"""`mastodon-assets …`: thin. It reads options, calls, and prints.

What belongs here: the words of the command line. Errors are one line; exit status 2 for wrong use
or settings, 1 for a failure.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mastodon_assets import cli_operations
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from mastodon_assets.demo import DemoResult
    from mastodon_assets.mastodon.intake import IngestSummary

app = typer.Typer(
    name="mastodon-assets",
    help="Mastodon to Kafka to Spark to PostgreSQL to sentiment to charts, as one asset graph.\n\n"
    "Start with: mastodon-assets demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli_operations.register(app)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def main() -> None:
    """Entry point: what an operator can mend is told in one line."""
    try:
        app()
    except SettingsError as error:
        _fail(error, 2)
    except PlatformError as error:
        _fail(error, 1)


@app.command()
def demo(
    toots: Annotated[int, typer.Option(min=1, help="Synthetic toots to make.")] = 2000,
    days: Annotated[int, typer.Option(min=1, help="Past days to spread them over.")] = 7,
    seed: Annotated[int, typer.Option(help="Same seed, same toots.")] = 1,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="Serve these recorded Status objects instead, one a line."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded stack up.")] = False,
    ui: Annotated[bool, typer.Option("--ui", help="Serve the web page on the result.")] = False,
) -> None:
    """The whole lineage on this machine: simulated server, Kafka, Spark, PostgreSQL, charts."""
    from mastodon_assets.demo import load_settings_of_demo, run_demo
    from mastodon_assets.local import stack

    result = run_demo(
        toots=toots,
        days=days,
        seed=seed,
        from_file=from_file,
        keep=keep or ui,
        report=_report,
    )
    _print_demo(result)
    home = load_settings_of_demo().mastodon_assets_home
    if ui:
        _serve_demo(home)
    if ui and not keep:
        stack.down(home)
    elif keep:
        out.print(
            "\nThe stack is up. Look around: [bold]mastodon-assets ui[/]; end it:"
            " [bold]mastodon-assets down --wipe[/]"
        )


@app.command()
def up() -> None:
    """Start the embedded Kafka and PostgreSQL, make topics and tables. Doing it twice is fine."""
    from pydantic import SecretStr

    from mastodon_assets.local import stack
    from mastodon_assets.warehouse.migrate import migrate

    settings = load_settings()
    connection = stack.up(
        settings.mastodon_assets_home,
        topics=[settings.kafka_topic, settings.kafka_errors_topic],
        report=_report,
    )
    version = migrate(SecretStr(connection.postgres_url))
    out.print(
        f"Kafka at {connection.kafka_bootstrap_servers}; PostgreSQL has schema {version};"
        f" addresses in {settings.mastodon_assets_home / 'connection.json'}"
    )


@app.command()
def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove the data as well.")] = False,
) -> None:
    """Stop the embedded stack; data stays unless --wipe."""
    from mastodon_assets.local import stack

    stack.down(load_settings().mastodon_assets_home, wipe=wipe, report=_report)


@app.command()
def status(as_json: Json = False) -> None:
    """What of the embedded stack runs, and how far the tables are behind Kafka."""
    from mastodon_assets.local import stack

    settings = load_settings()
    services = stack.status(settings.mastodon_assets_home)
    pipeline = _pipeline_state(settings)
    if as_json:
        sys.stdout.write(
            json.dumps(
                {
                    "services": [
                        {"name": s.name, "state": s.state, "detail": s.detail} for s in services
                    ],
                    "pipeline": pipeline,
                }
            )
            + "\n"
        )
        return
    table = Table("what", "state", "detail", box=None)
    for service in services:
        table.add_row(service.name, service.state, service.detail)
    for name, value in pipeline.items():
        table.add_row(name.replace("_", " "), "", str(value))
    out.print(table)


@app.command()
def ingest(
    max_events: Annotated[
        int | None, typer.Option("--max", min=1, help="End after so many received events.")
    ] = None,
    until_caught_up: Annotated[
        bool,
        typer.Option(
            "--until-caught-up", help="Walk the timeline from the last seen id, then end."
        ),
    ] = False,
) -> None:
    """Read a Mastodon server's public timeline into Kafka, until stopped."""
    from mastodon_assets.mastodon.ingest import ingest as run_ingest
    from mastodon_assets.warehouse.migrate import migrate

    settings = load_settings()
    migrate(settings.postgres_url)
    summary = run_ingest(
        settings,
        max_events=max_events,
        until_caught_up=until_caught_up,
        report=_report,
        should_stop=_stop_on_signal(),
    )
    _print_ingest(summary)


@app.command()
def stream(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End at the offsets seen at the start.")
    ] = False,
) -> None:
    """Bring Kafka's messages into the tables by Spark, until stopped."""
    from mastodon_assets.spark_session import build_session
    from mastodon_assets.toots.drain import drain, follow
    from mastodon_assets.warehouse.migrate import migrate

    settings = load_settings()
    migrate(settings.postgres_url)
    should_stop = _stop_on_signal()

    def session() -> Any:
        return build_session(settings)

    if until_caught_up:
        summary = drain(session, settings, report=_report)
    else:
        summary = follow(session, settings, report=_report, should_stop=should_stop)
    out.print(f"{summary.counts.messages} messages in {summary.batches} batches: {summary.counts}")


@app.command()
def simulate(
    port: Annotated[int, typer.Option(min=0, help="Port on 127.0.0.1; 0 takes a free one.")] = 8080,
    toots: Annotated[int, typer.Option(min=1, help="Synthetic toots of history.")] = 2000,
    days: Annotated[int, typer.Option(min=1, help="Past days to spread them over.")] = 7,
    seed: Annotated[int, typer.Option(help="Same seed, same toots.")] = 1,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="Serve these recorded Status objects instead, one a line."),
    ] = None,
    rate: Annotated[float, typer.Option(min=0, help="New toots a second after that.")] = 0.0,
) -> None:
    """Serve Mastodon's REST and streaming API with synthetic toots, until stopped."""
    from mastodon_assets.simulator.server import SimulatorServer, run

    def tell(server: SimulatorServer) -> None:
        out.print("Read it with these settings; Ctrl-C ends it:")
        out.print(f"MASTODON_API_BASE_URL={server.base_url}")
        out.print(f"MASTODON_ACCESS_TOKEN={server.token}")

    run(port=port, seed=seed, toots=toots, days=days, rate=rate, from_file=from_file, report=tell)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, help="Port of the web page on 127.0.0.1.")] = 3000,
) -> None:
    """Serve Dagster's web page with sensor and schedule, until stopped."""
    from mastodon_assets.local.dagster_home import dagster_home

    settings = load_settings()
    home = dagster_home(settings.mastodon_assets_home)
    workspace = (
        ["-w", "workspace.yaml"]
        if Path("workspace.yaml").exists()
        else ["-m", "mastodon_assets.definitions"]
    )
    _refuse_taken_port(port)
    os.execve(  # noqa: S606 - our own interpreter, our own arguments
        sys.executable,
        [*_dagster_dev(port), *workspace],
        {**os.environ, "DAGSTER_HOME": str(home)},
    )


def _dagster_dev(port: int) -> list[str]:
    return [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]


def _serve_demo(home: Path, port: int = 3000) -> None:
    """The web page on the demo's stack, in its state folder, where no `.env` can interfere."""
    import subprocess

    from mastodon_assets.demo import load_settings_of_demo
    from mastodon_assets.local.dagster_home import dagster_home
    from mastodon_assets.settings import as_environment

    _refuse_taken_port(port)
    environment = {
        **os.environ,
        **as_environment(load_settings_of_demo()),
        "DAGSTER_HOME": str(dagster_home(home)),
    }
    out.print(f"\nThe web page comes up at http://127.0.0.1:{port} ; Ctrl-C ends it.")
    process = subprocess.Popen(
        [*_dagster_dev(port), "-m", "mastodon_assets.definitions"], cwd=home, env=environment
    )
    try:
        process.wait()
    except KeyboardInterrupt:
        process.wait(timeout=60)


def _refuse_taken_port(port: int) -> None:
    # `dagster dev` stays up without its page where the port is taken, and two would share a home.
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(
                f"port {port} is taken; end what listens there or choose another with --port"
            ) from error


def _pipeline_state(settings: Settings) -> dict[str, Any]:
    from mastodon_assets.automation.progress import shown_state
    from mastodon_assets.toots.ledger import lag
    from mastodon_assets.toots.topics import read_topic

    try:
        topic = read_topic(settings.kafka_servers, settings.kafka_topic, timeout=3)
        shown = shown_state(settings)
    except PlatformError as error:
        return {"pipeline": str(error)}
    return {
        "messages_in_kafka": sum(topic.end.values()),
        "messages_ahead_of_tables": lag(shown.ledger, topic.end),
        "charts_are_current": shown.shown_version == shown.toots_version,
        "champion": shown.champion or "none",
    }


def _stop_on_signal() -> Callable[[], bool]:
    """Take SIGTERM and SIGINT as a wish to end in good order; a second one ends at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return lambda: bool(received)


def _report(line: str) -> None:
    from rich.markup import escape

    err.print(f"[dim]·[/] {escape(line)}", soft_wrap=True)


def _fail(error: PlatformError, status: int) -> None:
    from rich.markup import escape

    err.print(f"[red]error:[/] {escape(' '.join(str(error).split()))}", soft_wrap=True)
    raise SystemExit(status)


def _print_ingest(summary: "IngestSummary") -> None:
    table = Table("events", "count", box=None)
    table.columns[1].justify = "right"
    rows = {
        "received": summary.received,
        "published": summary.upserts,
        "deletes published": summary.deletes,
        "seen before": summary.duplicates,
        **{f"withheld: {reason}": count for reason, count in summary.withheld.most_common()},
        **{f"error: {reason}": count for reason, count in summary.errors.most_common()},
        "of other kinds": summary.ignored,
    }
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    out.print(table)


def _print_demo(result: "DemoResult") -> None:
    out.print("\n[bold]Read from the server[/]")
    _print_ingest(result.ingested)
    out.print("\n[bold]Tables of the schema masto[/]")
    table = Table("table", "rows", box=None)
    table.columns[1].justify = "right"
    for name, rows in result.rows.items():
        table.add_row(name, f"{rows:,}")
    out.print(table)
    out.print(f"\n[bold]Model[/] {result.champion}")
    out.print("\n[bold]Charts[/]")
    for path in result.charts:
        out.print(f"  {path}", soft_wrap=True)
    out.print("[bold]CSV files[/]")
    for path in result.exports:
        out.print(f"  {path}", soft_wrap=True)
    steps = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in result.seconds.items())
    out.print(f"\n{steps}; {sum(result.seconds.values()):.0f} s in all")


if __name__ == "__main__":
    main()
