"""Commands that bring posts into Kafka: `ingest`, `import`, `simulate` and `sources …`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.markup import escape

from mastodon_assets.cli.common import AsJson, Days, Seed, Toots, flag, port_option
from mastodon_assets.cli.console import print_counts, print_json, print_line, progress_bar
from mastodon_assets.cli.interrupts import stop_requested
from mastodon_assets.config.settings import load_settings

if TYPE_CHECKING:
    from mastodon_assets.ingest.handler import IngestSummary

sources_app = typer.Typer(help="Decide about servers that `status` shows as suspicious.")


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.command(rich_help_panel=panel)(ingest)
    app.command("import", rich_help_panel=panel)(import_file)
    app.command(rich_help_panel=panel)(simulate)
    app.add_typer(sources_app, name="sources", rich_help_panel=panel)


def ingest(
    max_events: Annotated[
        int | None,
        typer.Option("--max", min=1, help="Stop after this many received events.", metavar="N"),
    ] = None,
    until_caught_up: Annotated[
        bool,
        flag("--until-caught-up", "Read what was posted since the last run, then stop."),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="Also read the timelines back to this time: 7d, 12h, 90m or a date (2026-11-20).",
            metavar="TIME",
        ),
    ] = None,
    wait_for_token: Annotated[
        bool,
        flag(
            "--wait-for-token",
            "If the token is refused at the start, wait for another one instead of ending; for"
            " services that are restarted.",
        ),
    ] = False,
    metrics_port: Annotated[
        int | None,
        port_option("Serve metrics for Prometheus on this port of 127.0.0.1."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read posts from Mastodon servers into Kafka, until stopped (Ctrl-C).

    MASTODON_API_BASE_URL names the servers, MASTODON_SOURCES their timelines, and
    MASTODON_ACCESS_TOKEN or MASTODON_ACCESS_TOKENS_FILE their tokens. The counts are printed at
    the end.
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
    with serving_metrics(
        registry, metrics_port or settings.ingest_metrics_port, settings.metrics_host
    ):
        summary = run_ingest(
            settings,
            max_events=max_events,
            until_caught_up=until_caught_up,
            since=began_at,
            waits_for_token=wait_for_token,
            registry=registry,
            should_stop=stop_requested(),
        )
    _print_summary(summary, as_json)


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="Status objects as JSON, one per line, plain or gzipped; - is standard input.",
            metavar="FILE",
        ),
    ],
    instance: Annotated[
        str | None,
        typer.Option(
            help="Domain of the server they were recorded at; by default the host of its own"
            " accounts' pages. Deletes from that server apply only to posts imported under its"
            " domain.",
            metavar="DOMAIN",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read recorded posts from a file into Kafka.

    Consent, filters and checks are those of live posts. A line that is not a status becomes a dead
    letter (see: rejected). Importing a file twice changes nothing.
    """
    from mastodon_assets.config.state_folder import keep_from_demos
    from mastodon_assets.ingest.api.client import is_domain
    from mastodon_assets.ingest.importer import import_statuses
    from mastodon_assets.warehouse.migrate import migrate

    if instance is not None and not is_domain(instance):
        raise typer.BadParameter(f"{instance!r} is not a domain such as mastodon.example")
    settings = load_settings()
    with _opened(file) as source:
        migrate(settings.postgres_url)
        keep_from_demos(settings.mastodon_assets_home)
        summary = import_statuses(settings, source, instance=instance and instance.lower())
    _print_summary(summary, as_json)


def simulate(
    port: Annotated[
        int,
        port_option("Port on 127.0.0.1; 0 chooses a free one.", lowest=0),
    ] = 8080,
    toots: Toots = 2000,
    days: Days = 7,
    seed: Seed = 1,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Serve these recorded status objects instead, one per line.",
            metavar="FILE",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, metavar="N", help="New posts per second after the history.")
    ] = 0.0,
    domain: Annotated[
        str,
        typer.Option(
            metavar="DOMAIN",
            help="The server's domain. Remote posts are the same for every domain.",
        ),
    ] = "simulator.example",
    software: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="SOFTWARE",
            help="Answer like this software: mastodon-4.3, mastodon-4.5, mastodon-4.6, gotosocial,"
            " takahe or snac.",
        ),
    ] = "mastodon-4.5",
) -> None:
    """Serve a simulated Mastodon server, until stopped (Ctrl-C).

    It has the REST and the streaming API. Clients need the token in SIMULATOR_TOKEN; without one, a
    new token is printed.
    """
    from mastodon_assets.simulator.personalities import PERSONALITIES
    from mastodon_assets.simulator.server import SimulatorServer, run

    if software not in PERSONALITIES:
        names = ", ".join(sorted(PERSONALITIES))
        raise typer.BadParameter(f"--as {software}: allowed: {names}")
    given = load_settings().simulator_token

    def print_settings(server: SimulatorServer) -> None:
        print_line("Settings to read from this server (Ctrl-C stops it):")
        print_line(f"MASTODON_API_BASE_URL={server.base_url}")
        # Whoever set it knows it; it must not get into a log.
        shown = "(the value of SIMULATOR_TOKEN)" if given else server.token
        print_line(f"MASTODON_ACCESS_TOKEN={shown}")

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
            personality=PERSONALITIES[software],
            report=print_settings,
        )


@sources_app.command("accept")
def accept(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The server, as `status` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Let removals pass that were held, and more for a day.

    A server is suspicious if more than REMOVAL_BRAKE_SHARE of the posts that it was asked for are
    gone at once, or if it comes back as another one. It may be under repair, or restored from a
    backup: look at it in a browser first. Deletes that the server sends by its stream never wait.
    """
    from mastodon_assets.operations.accept_source import accept_source

    removed = accept_source(load_settings(), name)
    if as_json:
        print_json({"deletes_published": removed})
    else:
        print_line(f"{removed:,} deletes published; {name} is accepted for a day")


def print_ingested(summary: "IngestSummary") -> None:
    """Print what became of the events that were read."""
    print_counts(
        {
            "received": summary.received,
            "published": summary.upserts,
            "deletes published": summary.deletes,
            "seen before": summary.duplicates,
            **{f"withheld: {reason}": count for reason, count in summary.withheld.most_common()},
            **{f"dropped: {rule}": count for rule, count in summary.dropped.most_common()},
            **{f"error: {reason}": count for reason, count in summary.errors.most_common()},
            "events of other kinds": summary.ignored,
        }
    )


def _print_summary(summary: "IngestSummary", as_json: bool) -> None:
    if as_json:
        print_json({name: value for name, value in vars(summary).items() if name != "cursor"})
    else:
        print_ingested(summary)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open the file, with a progress bar on a terminal; `-` is standard input."""
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with file.open("rb") as raw, progress_bar() as progress:
        yield progress.wrap_file(raw, file.stat().st_size, description=escape(file.name))


def _parse_since(text: str) -> datetime:
    from mastodon_assets.ingest.recovery.history_walk import parse_since

    try:
        return parse_since(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(
            f"--since {text}: allowed: 7d, 12h, 90m or a time in the past such as 2026-11-20"
        ) from error
