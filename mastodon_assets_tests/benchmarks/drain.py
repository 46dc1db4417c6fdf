"""Drain N messages from a cold JVM: ours, a baseline, and an upper bound, one after the other.

    python -m mastodon_assets_tests.benchmarks.drain --messages 500000 --json drain.json
    python -m mastodon_assets_tests.benchmarks.drain --messages 100000 --words 190

Each runs on this machine, on real parts, from a process and in a database of its own, on one server
with one configuration:

- *ours*: `mastodon-assets stream --until-caught-up`.
- *baseline*: what one writes first. Three streaming queries (raw rows, counts per minute and
  language, average length per minute and user) in update mode with Spark's defaults, which append
  by JDBC. Its tables have no keys, which appends would violate.
- *upper bound*: a plain COPY of the same rows into keyed tables and the windows by one SQL
  statement each. It needs no JVM.

It also prints the CPU seconds of ours by kind of process. On a busy machine they say more than the
others.

A machine's first drain leaves Spark's classes in the user's cache: one of 1,000 messages is not
measured.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import psutil
from psycopg import Connection
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.kafka_access import KafkaAccess
from mastodon_assets.config.settings import as_environment, load_settings
from mastodon_assets.embedded import kafka, postgres
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.kafka.client import config_of
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.benchmarks.cpu import cpu_seconds
from mastodon_assets_tests.benchmarks.machine import machine
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.records import as_value, upsert

_WORDS = (
    *("the", "a", "cat", "garden", "train", "coffee", "morning", "rain", "music", "book"),
    *("street", "photo", "not", "very", "happy"),
)
_TOPIC = "mastodon_stream"
_FIRST_TOPIC = "first"
_OURS = ("-m", "mastodon_assets.cli.main", "stream", "--until-caught-up")
_WINDOWS = """
INSERT INTO masto.{table} (window_start, window_end, {column}, toots_count, total_length)
SELECT date_trunc('minute', event_at), date_trunc('minute', event_at) + interval '1 minute',
       {column}, count(*), sum(char_length(content_txt))
  FROM masto.toots_raw GROUP BY 1, 2, 3
"""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=[_TOPIC, _FIRST_TOPIC, "mastodon_errors"])
        try:
            facts = machine(SecretStr(stack.postgres_url))
            _produce(stack.kafka_access, 1_000, _FIRST_TOPIC, words=arguments.words)
            with new_database(stack) as url:
                _run(stack, url, *_OURS, kafka_topic=_FIRST_TOPIC)
            _produce(stack.kafka_access, arguments.messages, words=arguments.words)
            with new_database(stack) as ours, new_database(stack) as baseline:
                with cpu_seconds(_servers(home)) as cpu:
                    ours_seconds = _run(stack, ours, *_OURS)
                seconds = {
                    "ours": ours_seconds,
                    "baseline": _run(
                        stack, baseline, "-m", "mastodon_assets_tests.benchmarks.drain_baseline"
                    ),
                    "upper_bound": _upper_bound(stack, ours),
                }
                _check(ours, arguments.messages)
        finally:
            embedded.down(home, wipe=True)
    _print(seconds, arguments.messages)
    for kind, used in sorted(cpu.items(), key=lambda item: -item[1]):
        microseconds = used / arguments.messages * 1e6
        print(f"CPU of ours, {kind}: {used:.1f} s, {microseconds:.1f} µs per message")
    if arguments.json:
        result = {
            "machine": facts,
            "messages": arguments.messages,
            "seconds": {name: round(taken, 2) for name, taken in seconds.items()},
            "messages_per_second": {
                name: round(arguments.messages / taken) for name, taken in seconds.items()
            },
            "cpu_seconds_of_ours": {kind: round(used, 1) for kind, used in cpu.items()},
            "times_the_baseline": round(seconds["baseline"] / seconds["ours"], 2),
            "part_of_the_upper_bound": round(seconds["upper_bound"] / seconds["ours"], 2),
        }
        arguments.json.write_text(json.dumps(result, indent=2))


def _servers(home: Path) -> dict[str, psutil.Process]:
    found = {"PostgreSQL": postgres.find(home), "Kafka": kafka.find(home)}
    return {name: server for name, server in found.items() if server}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--words", type=int, default=20, help="per post, of five letters each")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _produce(
    access: KafkaAccess, messages: int, topic: str = _TOPIC, first: int = 0, *, words: int = 20
) -> None:
    from confluent_kafka import Producer

    generator = random.Random(1)
    producer = Producer({**config_of(access), "linger.ms": 50, "compression.type": "lz4"})
    for number in range(first, first + messages):
        text = " ".join(generator.choices(_WORDS, k=words))
        user = int(generator.paretovariate(0.6)) % 50_000
        second = generator.randrange(7 * 86_400)
        value = as_value(
            upsert(
                str(number),
                created_at=f"2026-11-{13 + second // 86_400:02d}T{second // 3600 % 24:02d}:"
                f"{second // 60 % 60:02d}:{second % 60:02d}Z",
                username=f"user{user}@one.example",
                language=generator.choice(["en", "en", "de", "ja", None]),
                content=text,
                content_html=f"<p>{text}</p>",
            )
        )
        producer.produce(topic, value)
        if number % 10_000 == 0:
            producer.poll(0.05)
        while len(producer) > 80_000:
            producer.poll(0.1)
    assert producer.flush(120) == 0


def _run(
    stack: embedded.Connection, url: SecretStr, *command: str, kafka_topic: str = _TOPIC
) -> float:
    """Seconds of the command, from the start of its process to its end."""
    settings = load_settings(
        **stack.kafka_settings,
        kafka_topic=kafka_topic,
        database_url=url,
    )
    started = time.monotonic()
    subprocess.run(
        [sys.executable, *command], env={**os.environ, **as_environment(settings)}, check=True
    )
    return time.monotonic() - started


def _check(url: SecretStr, messages: int) -> None:
    with transaction(url, snapshot=True) as connection:
        assert window_sum_and_rows(connection) == (messages, messages)


def _upper_bound(stack: embedded.Connection, source: SecretStr) -> float:
    """COPY of the rows that our drain stored into the same keyed tables, then the windows in SQL.

    Reading the rows out of the source is not counted: they wait in a file.
    """
    with new_database(stack) as url, tempfile.TemporaryFile() as rows:
        with transaction(source, snapshot=True) as connection:
            _copy_out(connection, rows)
        rows.seek(0)
        started = time.monotonic()
        with transaction(url) as connection:
            _copy_in(connection, rows)
            for table, column in (
                ("toot_metrics_windowed", "lang"),
                ("user_avg_length_windowed", "username"),
            ):
                connection.execute(_WINDOWS.format(table=table, column=column).encode())
        return time.monotonic() - started


def _copy_out(connection: Connection[Any], file: IO[bytes]) -> None:
    statement = "COPY masto.toots_raw TO STDOUT (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in copy:
            file.write(block)


def _copy_in(connection: Connection[Any], file: IO[bytes]) -> None:
    statement = "COPY masto.toots_raw FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        while block := file.read(1 << 20):
            copy.write(block)


def _print(seconds: dict[str, float], messages: int) -> None:
    table = Table(
        *("what", "seconds", "messages/s", "times the baseline", "part of the upper bound"),
        box=None,
    )
    for name, taken in seconds.items():
        ratios = (f"{seconds['baseline'] / taken:.1f}", f"{seconds['upper_bound'] / taken:.2f}")
        table.add_row(name, f"{taken:.1f}", f"{messages / taken:,.0f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
