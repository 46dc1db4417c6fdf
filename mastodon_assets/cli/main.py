"""`mastodon-assets …`: thin. It reads options, calls, and prints.

What belongs here: the words of the command line. Errors are one line; exit status 2 for wrong use
or settings, 1 for a failure.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from mastodon_assets.cli import history, models, operations, warehouse
from mastodon_assets.cli.console import configure_logging_by_settings, err, out, print_error
from mastodon_assets.cli.console import report as _report
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import PlatformError, SettingsError

if TYPE_CHECKING:
    from mastodon_assets.ingest.handler import IngestSummary
    from mastodon_assets.ingest.source_states import SourceStatus
    from mastodon_assets.operations.demo import DemoResult
    from mastodon_assets.stream.drain import DrainSummary

app = typer.Typer(
    name="mastodon-assets",
    help="Mastodon to Kafka to Spark to PostgreSQL to sentiment to charts, as one asset graph.\n\n"
    "Start with: mastodon-assets demo",
    add_completion=False,
    # Paragraphs are filled to the width of the terminal.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
# What typer raises for wrong use; of its kinds it exports only this one.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_INTERRUPTED = 130
_DEMO_PORT = 3000

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
FromFile = Annotated[
    Path | None,
    typer.Option("--from", help="Serve these recorded Status objects instead, one a line."),
]
Seed = Annotated[int, typer.Option(help="Same seed, same toots.")]
Toots = Annotated[int, typer.Option(min=1, help="Synthetic toots to make.")]
Days = Annotated[int, typer.Option(min=1, help="Backfill days to spread them over.")]


def main() -> None:
    """Entry point: what an operator can mend is told in one line.

    Exit status 2 for wrong use or settings, 1 for a failure, 130 where it was interrupted.
    """
    # SIGTERM ends a command as Ctrl-C does: in good order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except _UsageError as error:
        _fail(_usage_text(error), 2)
    except SettingsError as error:
        _fail(str(error), 2)
    except PlatformError as error:
        _fail(str(error), 1)
    except OSError as error:
        # A file or folder that cannot be used; anything else is a mistake of ours.
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", 1)
    raise SystemExit(status)


@app.callback()
def before_each_command() -> None:
    """Configure logging."""
    configure_logging_by_settings()


@app.command()
def demo(
    toots: Toots = 2000,
    days: Days = 7,
    seed: Seed = 1,
    from_file: FromFile = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Kafka and PostgreSQL up.")] = False,
    ui: Annotated[
        bool, typer.Option("--ui", help=f"Serve the web page on the result, port {_DEMO_PORT}.")
    ] = False,
) -> None:
    """Show all of it on this machine: simulated server, Kafka, Spark, PostgreSQL, charts.

    Needs no account and no settings; the first time it fetches 75 MB of programs.

    Takes about two minutes. Charts go to reports/, CSV files to data/.
    """
    from mastodon_assets.operations.demo import running_demo, show_web_page

    if ui:
        _refuse_taken_port(_DEMO_PORT)
    with running_demo(
        toots=toots, days=days, seed=seed, from_file=from_file, keep=keep, report=_report
    ) as result:
        _print_demo(result)
        if ui:
            with suppress(KeyboardInterrupt):
                show_web_page(result.settings, _DEMO_PORT, _report)
    if keep:
        out.print(
            "\nKafka and PostgreSQL are up.\n"
            "  look around:  [bold]mastodon-assets ui[/]\n"
            "  end it:       [bold]mastodon-assets down --wipe[/]"
        )


@app.command()
def up() -> None:
    """Start the embedded Kafka and PostgreSQL, make topics and tables. Doing it twice is fine."""
    from pydantic import SecretStr

    from mastodon_assets.embedded import stack
    from mastodon_assets.warehouse.migrate import migrate
    from mastodon_assets.warehouse.roles import create_roles

    settings = load_settings()
    connection = stack.up(
        settings.mastodon_assets_home,
        topics=[settings.kafka_topic, settings.kafka_errors_topic],
        report=_report,
    )
    create_roles(SecretStr(connection.postgres_url), {})
    version = migrate(SecretStr(connection.postgres_url))
    out.print(f"Kafka       {connection.kafka_bootstrap_servers}")
    out.print(f"PostgreSQL  {_address(connection.postgres_url)}, schema {version}")
    out.print(f"addresses   {settings.mastodon_assets_home / 'connection.json'}")


@app.command()
def prepare() -> None:
    """Make topics and tables in the Kafka and PostgreSQL that the settings name.

    For servers of your own; `up` does it for the embedded ones. Doing it twice is fine.
    """
    from mastodon_assets.kafka.client import client_config
    from mastodon_assets.kafka.topics import create_topics
    from mastodon_assets.warehouse.migrate import migrate

    settings = load_settings()
    topics = [settings.kafka_topic, settings.kafka_errors_topic]
    create_topics(settings.kafka_servers, topics, config=client_config(settings))
    version = migrate(settings.postgres_url)
    out.print(f"Kafka       {settings.kafka_servers}, topics {' and '.join(topics)}")
    out.print(f"PostgreSQL  {_address(settings.postgres_url.get_secret_value())}, schema {version}")


@app.command()
def down(
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Remove the data and Dagster's runs as well.")
    ] = False,
) -> None:
    """Stop the embedded Kafka and PostgreSQL; their data stays unless --wipe."""
    from mastodon_assets.embedded import stack
    from mastodon_assets.operations.demo import wipe_folder

    home = load_settings().mastodon_assets_home
    if wipe:
        wipe_folder(home, _report)
    else:
        stack.down(home, report=_report)


@app.command()
def status(as_json: Json = False) -> None:
    """Tell what runs, what each source is seen to do, and how far the tables are behind Kafka."""
    from mastodon_assets.embedded import stack

    settings = load_settings()
    elsewhere = {
        "Kafka": settings.kafka_bootstrap_servers,
        "PostgreSQL": settings.database_url,
    }
    # Servers of one's own are none of the stack; what they answer stands below.
    services = [
        service
        for service in stack.status(settings.mastodon_assets_home)
        if not elsewhere[service.name]
    ]
    pipeline, problem = _pipeline_state(settings)
    sources = _sources(settings)
    if as_json:
        told = {
            "services": [{"name": s.name, "state": s.state, "detail": s.detail} for s in services],
            "sources": [_described(source) for source in sources],
            "pipeline": pipeline,
            "problem": problem,
        }
        sys.stdout.write(f"{json.dumps(told)}\n")
        return
    table = Table(box=None, show_header=False)
    for service in services:
        table.add_row(service.name, service.state, service.detail)
    for name, value in (pipeline or {}).items():
        table.add_row(name.replace("_", " "), _shown(value))
    out.print(table)
    for source in sources:
        out.print(_source_text(source), markup=False)
    if problem:
        out.print(problem, markup=False)


@app.command()
def ingest(
    max_events: Annotated[
        int | None,
        typer.Option("--max", min=1, help="End after so many received events.", metavar="N"),
    ] = None,
    until_caught_up: Annotated[
        bool,
        typer.Option(
            "--until-caught-up", help="Read what was posted since the last time, then end."
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="Walk the timelines back so far: 7d, 12h, 90m or a date (2026-11-20).",
            metavar="TIME",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Serve numbers for Prometheus on 127.0.0.1.", metavar="N"
        ),
    ] = None,
) -> None:
    """Read timelines of Mastodon servers into Kafka, until stopped (Ctrl-C).

    The servers are named by MASTODON_API_BASE_URL, what is read of them by MASTODON_SOURCES, their
    tokens by MASTODON_ACCESS_TOKEN or MASTODON_ACCESS_TOKENS_FILE.
    """
    from prometheus_client import CollectorRegistry

    from mastodon_assets.config.state_folder import keep_from_demos
    from mastodon_assets.ingest.supervisor import ingest as run_ingest
    from mastodon_assets.operations.metrics_endpoint import serving_metrics
    from mastodon_assets.warehouse.migrate import migrate

    began_at = None if since is None else _parse_since(since)
    settings = load_settings()
    migrate(settings.postgres_url)
    keep_from_demos(settings.mastodon_assets_home)
    registry = CollectorRegistry()
    with serving_metrics(registry, metrics_port or settings.ingest_metrics_port):
        summary = run_ingest(
            settings,
            max_events=max_events,
            until_caught_up=until_caught_up,
            since=began_at,
            registry=registry,
            should_stop=_stop_on_signal(),
        )
    _print_ingest(summary)


@app.command("import")
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="Status objects as JSON, one a line; plain or gzipped. - reads standard input.",
            metavar="FILE",
        ),
    ],
    instance: Annotated[
        str,
        typer.Option(
            help="The server they were recorded at; only by its name a later delete finds them.",
            metavar="DOMAIN",
        ),
    ] = "unknown",
    as_json: Json = False,
) -> None:
    """Bring recorded statuses into Kafka, under the rules of live ones: consent, filters, contract.

    A line that is no status is a dead letter (see: rejected). Twice changes nothing.
    """
    from mastodon_assets.config.state_folder import keep_from_demos
    from mastodon_assets.ingest.api.client import is_domain
    from mastodon_assets.ingest.importer import import_statuses
    from mastodon_assets.warehouse.migrate import migrate

    if not is_domain(instance):
        raise typer.BadParameter(f"{instance!r} is no server's name such as mastodon.example")
    settings = load_settings()
    with _opened(file) as source:
        migrate(settings.postgres_url)
        keep_from_demos(settings.mastodon_assets_home)
        summary = import_statuses(settings, source, instance=instance.lower())
    if as_json:
        counts = {name: value for name, value in vars(summary).items() if name != "cursor"}
        sys.stdout.write(f"{json.dumps(counts)}\n")
    else:
        _print_ingest(summary)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """The file, with a bar on a terminal that shows how much is read; standard input for `-`."""
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with (
        file.open("rb") as raw,
        Progress(console=err, transient=True, disable=not err.is_terminal) as progress,
    ):
        yield progress.wrap_file(raw, file.stat().st_size, description=escape(file.name))


@app.command()
def stream(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End with what is in Kafka now.")
    ] = False,
    ui_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve Spark's own page on this port of 127.0.0.1."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Serve numbers for Prometheus on this port of 127.0.0.1."
        ),
    ] = None,
) -> None:
    """Bring Kafka's messages into the tables by Spark as they come, until stopped (Ctrl-C).

    A cut of Kafka or PostgreSQL does not end it: it goes on where the tables are.
    """
    from mastodon_assets.spark.session import ShortLivedSession, build_session
    from mastodon_assets.stream.drain import drain
    from mastodon_assets.warehouse.migrate import migrate

    ports = {"spark_ui_port": ui_port, "stream_metrics_port": metrics_port}
    settings = load_settings(**{name: port for name, port in ports.items() if port})
    if settings.spark_ui_port:
        # Spark would take the next free one in silence.
        _refuse_taken_port(settings.spark_ui_port)
    migrate(settings.postgres_url)
    should_stop = _stop_on_signal()
    if until_caught_up:
        with ShortLivedSession(settings, _report) as session:
            _print_summary(drain(session, settings, report=_report))
    else:
        _print_summary(_stream(lambda: build_session(settings), settings, should_stop))


@app.command()
def simulate(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8080,
    toots: Toots = 2000,
    days: Days = 7,
    seed: Seed = 1,
    from_file: FromFile = None,
    rate: Annotated[float, typer.Option(min=0, help="New toots a second after those.")] = 0.0,
    domain: Annotated[
        str, typer.Option(help="What the server calls itself; remote toots are the same for all.")
    ] = "simulator.example",
) -> None:
    """Serve Mastodon's REST and streaming API with synthetic toots, until stopped (Ctrl-C).

    Its clients need the token in SIMULATOR_TOKEN; without it one is made and printed.
    """
    from mastodon_assets.simulator.server import SimulatorServer, run

    given = load_settings().simulator_token

    def tell(server: SimulatorServer) -> None:
        out.print("Read it with these settings; Ctrl-C ends it:")
        out.print(f"MASTODON_API_BASE_URL={server.base_url}")
        # Whoever gave it knows it; it need not stand in a log.
        shown = "(the value of SIMULATOR_TOKEN)" if given else server.token
        out.print(f"MASTODON_ACCESS_TOKEN={shown}")

    # Being stopped is how it ends, at whatever moment that comes.
    with suppress(KeyboardInterrupt):
        run(
            port=port,
            seed=seed,
            toots=toots,
            days=days,
            rate=rate,
            domain=domain,
            from_file=from_file,
            token=given.get_secret_value() if given else None,
            report=tell,
        )


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the web page on 127.0.0.1.")
    ] = 3000,
) -> None:
    """Serve Dagster's web page, with sensor and schedule at work, until stopped (Ctrl-C)."""
    from mastodon_assets.orchestration.dagster_home import dagster_home
    from mastodon_assets.orchestration.web_server import DEFINITIONS, serve_web_page

    home = dagster_home(load_settings().mastodon_assets_home)
    workspace = Path("workspace.yaml")
    _refuse_taken_port(port)
    _report(f"starting the web page at http://127.0.0.1:{port}; Ctrl-C ends it")
    serve_web_page(
        port,
        environment={**os.environ, "DAGSTER_HOME": str(home)},
        target=("-w", str(workspace)) if workspace.exists() else DEFINITIONS,
    )


def _print_summary(summary: "DrainSummary") -> None:
    out.print(f"{summary.counts.messages:,} messages in {summary.batches} batches")
    _print_counts(asdict(summary.counts))


def _stream(
    session: Callable[[], Any], settings: Settings, should_stop: Callable[[], bool]
) -> "DrainSummary":
    from prometheus_client import CollectorRegistry

    from mastodon_assets.operations.metrics_endpoint import serving_metrics
    from mastodon_assets.orchestration.dagster_home import existing_dagster_home
    from mastodon_assets.orchestration.events import report_to_dagster
    from mastodon_assets.sentiment.scoring.micro_batch import MicroBatchScorer
    from mastodon_assets.stream.continuous import stream as run_stream
    from mastodon_assets.stream.metrics import StreamProgress

    registry = CollectorRegistry()
    progress = StreamProgress(
        settings,
        report=_report,
        tell=report_to_dagster(existing_dagster_home(settings.mastodon_assets_home)),
        registry=registry,
    )
    with serving_metrics(registry, settings.stream_metrics_port):
        return run_stream(
            session,
            settings,
            make_scorer=MicroBatchScorer,
            report=_report,
            progress=progress,
            should_stop=should_stop,
        )


def _refuse_taken_port(port: int) -> None:
    # `dagster dev` stays up without its page where the port is taken, and two would share a home.
    from mastodon_assets.ports import is_free

    if not is_free(port):
        raise SettingsError(
            f"port {port} is taken; end what listens there (ui takes another with --port)"
        )


def _pipeline_state(settings: Settings) -> tuple[dict[str, Any] | None, str | None]:
    """How far the tables are, or in one line why that cannot be told."""
    from mastodon_assets.kafka.topics import read_topic
    from mastodon_assets.orchestration.refresh_state import shown_state
    from mastodon_assets.stream.ledger import lag

    try:
        shown = shown_state(settings)
        topic = read_topic(settings, settings.kafka_topic, timeout=3)
    except PlatformError as error:
        return None, _in_one_line(str(error))
    pipeline = {
        "messages_in_kafka": sum(topic.end.values()),
        "messages_ahead_of_tables": lag(shown.ledger, topic.end),
        "charts_are_current": shown.shown_version == shown.toots_version
        and shown.shown_champions == {shown.champion},
        "champion": shown.champion or "none",
    }
    return pipeline, None


def _sources(settings: Settings) -> "list[SourceStatus]":
    """An empty list where they cannot be read: `_pipeline_state` says why."""
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
    return f"{source.instance}/{source.source}: {', '.join(parts)}"


def _address(postgres_url: str) -> str:
    """`host:port/database`, without user and password."""
    return postgres_url.rpartition("@")[2]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _parse_since(text: str) -> datetime:
    from mastodon_assets.ingest.recovery.history_walk import parse_since

    try:
        return parse_since(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(
            f"--since {text}: allowed: 7d, 12h, 90m or a time in the past such as 2026-11-20"
        ) from error


def _stop_on_signal() -> Callable[[], bool]:
    """Take SIGTERM and SIGINT as a wish to end in good order; a second one ends at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return lambda: bool(received)


def _usage_text(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "mastodon-assets"
    return f"{error.format_message().rstrip('.')} (see: {command} --help)"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(message: str, status: int) -> NoReturn:
    print_error(message)
    raise SystemExit(status)


def _print_ingest(summary: "IngestSummary") -> None:
    _print_counts(
        {
            "received": summary.received,
            "published": summary.upserts,
            "deletes published": summary.deletes,
            "seen before": summary.duplicates,
            **{f"withheld: {reason}": count for reason, count in summary.withheld.most_common()},
            **{f"dropped: {rule}": count for rule, count in summary.dropped.most_common()},
            **{f"error: {reason}": count for reason, count in summary.errors.most_common()},
            "of other kinds": summary.ignored,
        }
    )


def _print_demo(result: "DemoResult") -> None:
    out.print("\n[bold]Events read from the server[/]")
    _print_ingest(result.ingested)
    out.print("\n[bold]Rows of the tables in schema masto[/]")
    for rows in _in_groups(result.rows):
        _print_counts(rows)
        out.print()
    out.print(f"[bold]Model that scores[/]\n  {escape(result.champion)}")
    for title, paths in (("Charts", result.charts), ("CSV files", result.exports)):
        out.print(f"\n[bold]{title}[/]")
        for path in paths:
            out.print(f"  {escape(str(path))}")
    out.print("\n[bold]Seconds[/]")
    _print_counts({**result.seconds, "in all": sum(result.seconds.values())})


def _in_groups(rows: Mapping[str, int]) -> list[dict[str, int]]:
    """Toots, batch tables, sentiment, bookkeeping; each group in the order of the registry."""
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


def _print_counts(counts: Mapping[str, float]) -> None:
    # One width for all tables of a screen, so that the numbers stand in one column.
    for name, count in counts.items():
        out.print(f"  {escape(name):<40}{count:>12,.0f}")


# After the commands above, so that `--help` begins with the first ones to try.
operations.register(app)
history.register(app)
models.register(app)
warehouse.register(app)


if __name__ == "__main__":
    main()
