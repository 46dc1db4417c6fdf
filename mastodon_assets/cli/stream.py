"""Commands that bring Kafka's messages into the tables, and repair what is there.

What belongs here: `stream`, `replay`, `rebuild` and `rejected …`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mastodon_assets.cli.common import REASONS_SHOWN, AsJson, flag, port_option, refuse_taken_port
from mastodon_assets.cli.console import (
    escaped,
    print_counts,
    print_json,
    print_line,
    print_table,
    report,
)
from mastodon_assets.cli.interrupts import stop_requested
from mastodon_assets.config.settings import Settings, load_settings

if TYPE_CHECKING:
    from mastodon_assets.contract.dead_letter import DeadLetter, ReplaySummary
    from mastodon_assets.stream.drain import DrainSummary

_PAYLOAD_CHARACTERS = 60

rejected_app = typer.Typer(
    help="Show and replay dead letters: messages and posts that were not accepted."
)

_Reason = Annotated[
    str,
    typer.Option(
        "--reason", metavar="TEXT", help="Only those whose reason contains this text, in any case."
    ),
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    for command in (stream, replay, rebuild):
        app.command(rich_help_panel=panel)(command)
    app.add_typer(rejected_app, name="rejected", rich_help_panel=panel)


def stream(
    until_caught_up: Annotated[
        bool,
        flag("--until-caught-up", "Stop at the messages that are in Kafka now."),
    ] = False,
    ui_port: Annotated[
        int | None,
        port_option("Serve Spark's own web page on this port of 127.0.0.1."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        port_option("Serve metrics for Prometheus on this port of 127.0.0.1."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write Kafka's messages to the tables as they arrive, until stopped (Ctrl-C).

    Spark reads and checks them. If Kafka or PostgreSQL is away for a while, the stream waits and
    continues where the tables are. The counts are printed at the end.
    """
    from mastodon_assets.spark.session import ShortLivedSession, build_session
    from mastodon_assets.stream.drain import drain
    from mastodon_assets.warehouse.migrate import migrate

    ports = {"spark_ui_port": ui_port, "stream_metrics_port": metrics_port}
    settings = load_settings(**{name: port for name, port in ports.items() if port})
    if settings.spark_ui_port:
        # Spark would take the next free one without a word.
        refuse_taken_port(settings.spark_ui_port, "--ui-port")
    migrate(settings.postgres_url)
    should_stop = stop_requested()
    if until_caught_up:
        with ShortLivedSession(settings, report) as session:
            summary = drain(session, settings, report=report)
    else:
        summary = _stream(lambda: build_session(settings), settings, should_stop)
    if as_json:
        print_json({"batches": summary.batches, **summary.counts.by_outcome()})
    else:
        batches = f"{summary.batches} batch{'' if summary.batches == 1 else 'es'}"
        print_line(f"{summary.counts.messages:,} messages in {batches}")
        print_counts(summary.counts.by_outcome())


def replay(
    partition: Annotated[
        int | None, typer.Option(min=0, help="Only this partition.", metavar="P")
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(
            "--from",
            min=0,
            metavar="OFFSET",
            help="First offset; by default the earliest in Kafka.",
        ),
    ] = None,
    end: Annotated[
        int | None,
        typer.Option(
            "--to",
            min=0,
            metavar="OFFSET",
            help="Offset after the last; by default the tables' own.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read messages again that the tables have already read.

    Restores rows that are missing, and checks refused messages with today's code. A stream may run
    at the same time. Replaying twice changes nothing.
    """
    from mastodon_assets.spark.session import ShortLivedSession
    from mastodon_assets.stream.replay import replay as run_replay
    from mastodon_assets.warehouse.migrate import migrate

    if partition is None and (start is not None or end is not None):
        raise typer.BadParameter("--from and --to are offsets of one partition: give --partition")
    settings = load_settings()
    migrate(settings.postgres_url)
    with ShortLivedSession(settings, report) as session:
        summary = run_replay(
            session, settings, partition=partition, start=start, end=end, report=report
        )
    if as_json:
        ranges = {str(number): list(range_) for number, range_ in summary.ranges.items()}
        print_json({"topic": summary.topic, "ranges": ranges, **summary.counts.by_outcome()})
        return
    print_line(f"{summary.counts.messages:,} messages read again")
    print_counts(summary.counts.by_outcome())


def rebuild(
    tables: Annotated[
        list[str], typer.Argument(help="Names of tables, or all.", metavar="TABLE...|all")
    ],
    as_json: AsJson = False,
) -> None:
    """Rebuild derived tables from toots_raw: windows, batch tables, scores, totals.

    Only rows that are wrong are written. Their number is printed for each table.
    """
    from mastodon_assets.operations.rebuild import REBUILDS
    from mastodon_assets.operations.rebuild import rebuild as run_rebuild
    from mastodon_assets.spark.session import ShortLivedSession
    from mastodon_assets.warehouse.migrate import migrate

    names = list(REBUILDS) if tables == ["all"] else tables
    if unknown := [name for name in names if name not in REBUILDS]:
        raise typer.BadParameter(
            f"no such table: {unknown[0]}; allowed: {', '.join(REBUILDS)}, all"
        )
    settings = load_settings()
    migrate(settings.postgres_url)
    changed = {}
    with ShortLivedSession(settings, report) as session:
        for name, rows in run_rebuild(session, settings, names, report):
            changed[name] = rows
            if not as_json:
                print_line(f"  {name:<40}{rows:>12,} rows changed")
    if as_json:
        print_json(changed)


@rejected_app.command("list")
def list_rejected(
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Show at most this many, newest first.")
    ] = 20,
    reason: _Reason = "",
    as_json: AsJson = False,
) -> None:
    """List the newest dead letters and count them by reason."""
    from mastodon_assets.contract.dead_letter import newest_first
    from mastodon_assets.ingest.dead_letters import newest_errors
    from mastodon_assets.stream.dead_letters import count_rejected, newest_rejected

    settings = load_settings()
    rejected = newest_rejected(settings.postgres_url, reason=reason, limit=limit)
    counts = count_rejected(settings.postgres_url, reason=reason)
    errors, error_counts = newest_errors(settings, reason=reason, limit=limit)
    dead_letters = newest_first([*rejected, *errors])[:limit]
    if as_json:
        print_json(
            {
                "dead_letters": [
                    _described(dead_letter, _shortened(dead_letter)) for dead_letter in dead_letters
                ],
                "reasons": dict((counts + error_counts).most_common()),
            }
        )
    else:
        _print_dead_letters(dead_letters, counts + error_counts)


@rejected_app.command("show")
def show_rejected(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="Topic, as `rejected list` shows it.")
    ],
    partition: Annotated[int, typer.Argument(min=0, metavar="PARTITION", help="Partition.")],
    offset: Annotated[int, typer.Argument(min=0, metavar="OFFSET", help="Offset.")],
    raw: Annotated[bool, flag("--raw", "Write only the payload's bytes, unchanged.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter in full."""
    from mastodon_assets.ingest.dead_letters import read_error
    from mastodon_assets.stream.dead_letters import read_rejected

    settings = load_settings()
    if topic == settings.kafka_errors_topic:
        dead_letter = read_error(settings, partition, offset)
    else:
        dead_letter = read_rejected(settings.postgres_url, topic, partition, offset)
    payload, key = (
        None if part is None else escaped(part) for part in (dead_letter.payload, dead_letter.key)
    )
    if raw:
        sys.stdout.buffer.write(dead_letter.payload or b"")
        sys.stdout.buffer.flush()
    elif as_json:
        print_json(_described(dead_letter, payload) | {"key": key})
    else:
        for name, value in {
            "place": _place(dead_letter),
            "refused at": _time(dead_letter),
            "reason": dead_letter.reason,
            "key": key or "none",
            "payload": payload or "none",
        }.items():
            print_line(f"{name:<11} {value}")


@rejected_app.command("replay")
def replay_dead_letters(
    reason: _Reason = "",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Publish at most this many of each kind.")
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Only count what would be published.")] = False,
    again: Annotated[
        bool,
        flag("--again", "Start at the oldest unpublished post, not after the last replay."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check dead letters with today's code and publish those that pass.

    A refused message that passes is removed from the table of refused messages; the others stay.

    Posts that could not be published stay in their topic. The next replay continues after them,
    except with --reason, which skips some. Replaying twice changes nothing.
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
            suppression_key=settings.suppression_key,
        )
        errors = replay_errors(settings, publisher, reason=reason, limit=limit, again=again)
    if as_json:
        print_json({"refused": asdict(rejected), "unpublished": asdict(errors), "dry_run": dry_run})
        return
    verb = "would be published" if dry_run else "published"
    _print_replay("refused by the tables", verb, rejected)
    _print_replay("not published by the ingester", verb, errors)


def _stream(
    session: Callable[[], Any], settings: Settings, should_stop: Callable[[], bool]
) -> "DrainSummary":
    from prometheus_client import CollectorRegistry

    from mastodon_assets.operations.metrics_endpoint import serving_metrics
    from mastodon_assets.operations.platform_metrics import PlatformCollector
    from mastodon_assets.orchestration.dagster_home import existing_dagster_home
    from mastodon_assets.orchestration.events import report_to_dagster
    from mastodon_assets.sentiment.scoring.micro_batch import MicroBatchScorer
    from mastodon_assets.stream.continuous import stream as run_stream
    from mastodon_assets.stream.metrics import StreamProgress

    registry = CollectorRegistry()
    progress = StreamProgress(
        settings,
        on_report=report_to_dagster(existing_dagster_home(settings.mastodon_assets_home)),
        registry=registry,
    )
    if settings.stream_metrics_port is not None:
        registry.register(PlatformCollector(settings))
    with serving_metrics(registry, settings.stream_metrics_port, settings.metrics_host):
        return run_stream(
            session,
            settings,
            make_scorer=MicroBatchScorer,
            progress=progress,
            should_stop=should_stop,
        )


def _described(dead_letter: "DeadLetter", payload: str | None) -> dict[str, object]:
    return {
        "topic": dead_letter.topic,
        "partition": dead_letter.partition,
        "offset": dead_letter.offset,
        "at": dead_letter.at and dead_letter.at.isoformat(),
        "reason": dead_letter.reason,
        "payload": payload,
    }


def _print_dead_letters(dead_letters: "Sequence[DeadLetter]", counts: Counter[str]) -> None:
    table = Table(
        "topic partition offset", "refused at", "reason", "payload", box=None, pad_edge=False
    )
    for dead_letter in dead_letters:
        cells = (
            _place(dead_letter),
            _time(dead_letter),
            escaped(dead_letter.reason),
            _shortened(dead_letter) or "none",
        )
        # As text, because brackets in it are no markup.
        table.add_row(*(Text(cell) for cell in cells))
    if dead_letters:
        print_table(table)
    total = counts.total()
    print_line(f"{total:,} dead letter{'' if total == 1 else 's'}")
    for reason, count in counts.most_common(REASONS_SHOWN):
        print_line(f"{count:>9,}  {reason}")
    if len(counts) > REASONS_SHOWN:
        print_line(f"           and {len(counts) - REASONS_SHOWN} more reasons: --json has all")


def _print_replay(kind: str, verb: str, summary: "ReplaySummary") -> None:
    print_line(f"{kind}: {summary.published:,} {verb}, {summary.kept.total():,} not")
    for reason, count in summary.kept.most_common(REASONS_SHOWN):
        print_line(f"{count:>9,}  {reason}")


def _place(dead_letter: "DeadLetter") -> str:
    return f"{dead_letter.topic} {dead_letter.partition} {dead_letter.offset}"


def _time(dead_letter: "DeadLetter") -> str:
    return "unknown" if dead_letter.at is None else f"{dead_letter.at:%Y-%m-%d %H:%M:%S}Z"


def _shortened(dead_letter: "DeadLetter") -> str | None:
    if dead_letter.payload is None:
        return None
    # A character has four bytes at most.
    start = escaped(dead_letter.payload[: 4 * _PAYLOAD_CHARACTERS])[:_PAYLOAD_CHARACTERS]
    return start if start == escaped(dead_letter.payload) else f"{start}…"
