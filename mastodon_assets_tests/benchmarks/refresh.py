"""What a refresh costs after 5,000 new toots, on a short history and on a long one.

    python -m mastodon_assets_tests.benchmarks.refresh --json refresh.json
    python -m mastodon_assets_tests.benchmarks.refresh --rows 500 --messages 0

Both histories have 5,000 toots per day, of the same people and hashtags; the long one has a hundred
times the days. They are inserted by SQL, and the product's own rebuilds derive the rest. Then a
twentieth of the toots is deleted and another one edited, as the merge does it, and a first refresh
has run.

What is measured is `refresh_job`, run in a process of its own as Dagster's launcher does. It starts
when Kafka has acknowledged new messages, and `mastodon-assets stream` is at work meanwhile. With
`--messages 0` nothing is new, and no stream is started. On a busy machine the CPU seconds of the
process and its children say more than the others; those of stream and servers are not in them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
from psycopg import Connection
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.orchestration.jobs import refresh_job
from mastodon_assets.orchestration.web_server import DEFINITIONS
from mastodon_assets.stream.ledger import lag, read_ledger
from mastodon_assets.stream.merge import prepare_session
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.post_sums import ALL_POSTS, POST_SUMS, PostSums
from mastodon_assets.warehouse.rollups import rebuild_rollups
from mastodon_assets.warehouse.sum_tables import correct_sums
from mastodon_assets_tests.benchmarks.indexes import delete_and_edit
from mastodon_assets_tests.benchmarks.latency import stream_at_work
from mastodon_assets_tests.benchmarks.size import put_history
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.records import as_value, upsert

_TOPIC = "mastodon_stream"
_TOOTS_A_DAY = 5_000
_SECONDS_TO_START = 300
_SCORES = """
INSERT INTO masto.toots_sentiment
       (id, created_at, scored_at, prob_pos, label_bin, lang, label_str, model_version, text)
SELECT id, created_at, received_at + interval '1 second', 0.75, 1, lang, 'positive', m.version,
       content_txt
  FROM masto.toots_raw, masto.sentiment_models m
 WHERE m.status = 'champion'
"""
# The first refresh fills the hourly tables.
_MARKS = """
INSERT INTO masto.changed_hours (hour, changes)
SELECT DISTINCT date_trunc('hour', event_at, 'UTC'), 1 FROM masto.toots_raw
"""


def main() -> None:
    arguments = _arguments()
    taken: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=[_TOPIC, "mastodon_errors"])
        try:
            for number, rows in enumerate((arguments.rows, 100 * arguments.rows)):
                topic = f"{_TOPIC}_{number}"
                embedded.up(home, topics=[topic])
                with new_database(stack) as url:
                    settings = load_settings(
                        **stack.kafka_settings,
                        kafka_topic=topic,
                        database_url=url,
                        reports_dir=Path(folder) / f"reports{number}",
                        exports_dir=Path(folder) / f"data{number}",
                        model_dir=Path(folder) / f"model{number}",
                    )
                    taken[f"{rows:,}"] = _measure(
                        settings, Path(folder) / f"dagster{number}", rows, arguments
                    )
        finally:
            embedded.down(home, wipe=True)
    _print(taken)
    if arguments.json:
        document = {"new_toots": arguments.messages, "seconds": taken, "load": os.getloadavg()[0]}
        arguments.json.write_text(json.dumps(document, indent=2))


def _measure(
    settings: Settings, dagster_home: Path, rows: int, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each step, and of the whole process as `refresh_job`; one of each refresh."""
    dagster_home.mkdir()
    environment = {**os.environ, **as_environment(settings), "DAGSTER_HOME": str(dagster_home)}
    train = ["asset", "materialize", "--select", "group:model", *DEFINITIONS]
    refresh = ["job", "execute", "-j", refresh_job.name, *DEFINITIONS]
    started = time.monotonic()
    run_dagster(train, environment)
    _put_derived_history(settings, rows)
    _say(f"{rows:,} toots inserted in {time.monotonic() - started:.0f} s")
    taken: dict[str, list[float]] = {}
    with stream_at_work(settings) if arguments.messages else nullcontext():
        # The first batches of a JVM are slow, and the first refresh fills the hourly tables.
        _produce(settings, arguments.messages, "first")
        _wait_for_stream(settings)
        run_dagster(refresh, environment)
        # As a database that has had time has it, whatever autovacuum has got to here.
        _vacuum(settings)
        for number in range(arguments.refreshes):
            _produce(settings, arguments.messages, str(number))
            started, cpu = time.monotonic(), _cpu_seconds()
            run_dagster(refresh, environment)
            seconds = {
                refresh_job.name: time.monotonic() - started,
                f"{refresh_job.name}, CPU": _cpu_seconds() - cpu,
                **_steps(dagster_home),
            }
            _say(
                f"refresh of {arguments.messages:,} on {rows:,}: {seconds[refresh_job.name]:.1f} s"
            )
            for name, value in seconds.items():
                taken.setdefault(name, []).append(round(value, 2))
            assert not _behind(settings), "the refresh did not wait for the stream"
    return taken


def _put_derived_history(settings: Settings, rows: int) -> None:
    with transaction(settings.postgres_url) as connection:
        put_history(connection, rows, days=max(1, rows // _TOOTS_A_DAY))
        for sums in POST_SUMS:
            _fill(connection, sums)
        prepare_session(connection)
        delete_and_edit(connection, part=0)
        connection.execute(_SCORES)
        connection.execute(_MARKS)
        rebuild_rollups(connection)
    _vacuum(settings)


def _fill(connection: Connection[Any], sums: PostSums) -> None:
    correct_sums(connection, sums.sum_table, lambda _: sums.query(ALL_POSTS))


def _vacuum(settings: Settings) -> None:
    with transaction(settings.postgres_url) as connection:
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _wait_for_stream(settings: Settings) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while _behind(settings):
        assert time.monotonic() < deadline, "the stream does not read"
        time.sleep(1)


def _behind(settings: Settings) -> int:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        ledger = read_ledger(connection, settings.kafka_topic)
    return lag(ledger, read_topic(settings, settings.kafka_topic).end)


def _produce(settings: Settings, messages: int, series: str) -> None:
    """Publish toots of the day after the history, by its people."""
    from confluent_kafka import Producer

    producer = Producer({**client_config(settings), "linger.ms": 50})
    for message in range(messages):
        second = message * 86_400 // messages
        at = f"2026-11-20T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
        value = upsert(
            f"{series}-{message}",
            created_at=at,
            username=f"user{message % 50_000}@one.example",
            hashtags=["news", f"tag{message % 500}"],
            content="a good day in the garden, and a train that was not late",
        )
        producer.produce(settings.kafka_topic, as_value(value))
        producer.poll(0)
    assert producer.flush(120) == 0


def run_dagster(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `dagster` to its end in the folder DAGSTER_HOME; exit with its last lines if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        env=environment,
        cwd=environment["DAGSTER_HOME"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])


def _cpu_seconds() -> float:
    """Seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _steps(dagster_home: Path) -> dict[str, float]:
    """Seconds of each step of the newest run."""
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        (run,) = instance.get_runs(limit=1)
        stats = instance.get_run_step_stats(run.run_id)
    return {
        step.step_key: step.end_time - step.start_time
        for step in stats
        if step.start_time is not None and step.end_time is not None
    }


def _print(taken: dict[str, dict[str, list[float]]]) -> None:
    short, long = taken
    table = Table("step", f"s at {short} toots", f"s at {long}", "ratio", "more", box=None)
    smallest = {
        name: (min(seconds), min(taken[long].get(name, [0.0])))
        for name, seconds in taken[short].items()
    }
    for name, (before, after) in sorted(smallest.items(), key=lambda item: -item[1][1]):
        ratio = f"{after / before:.2f}" if before else ""
        table.add_row(name, f"{before:.2f}", f"{after:.2f}", ratio, f"{after - before:+.2f}")
    Console().print(table)


def _say(line: str) -> None:
    print(line, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="toots of the short history")
    parser.add_argument("--messages", type=int, default=5_000, help="new toots a refresh")
    parser.add_argument("--refreshes", type=int, default=3, help="on each history; the best counts")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
