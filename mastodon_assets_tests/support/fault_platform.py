"""A stack whose parts may be killed, and the streams, runs and messages to do it with.

What belongs here: what the tests of faults and the benchmark of a hundred faults share.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from confluent_kafka import Producer
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.ledger import read_ledger
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.records import as_value, delete, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TOPIC = "fault_platform"
PATIENCE_SECONDS = 240
STREAM = ("-m", "mastodon_assets.cli.main", "stream")
ASSET_RUN = (
    *("-m", "dagster", "asset", "materialize", "--select", "toots_raw"),
    *("-m", "mastodon_assets.definitions"),
)

# What two runs over the same messages must agree in; times of our own clock are left out.
_COMPARED = {
    "toots_raw": "*",
    "toot_metrics_windowed": "*",
    "user_avg_length_windowed": "*",
    "toots_deleted": "*",
    "toot_aliases": "*",
    "toots_rejected": "topic, partition, kafka_offset, reason, payload, message_key",
    "kafka_offsets": "topic, partition, topic_id, next_offset",
}


def tables(postgres_url: SecretStr) -> dict[str, list[Any]]:
    """All rows of the tables that a drain writes, in one snapshot."""
    with transaction(postgres_url, snapshot=True) as connection:
        return {
            name: sorted(
                connection.execute(f"SELECT {columns} FROM masto.{name}".encode()).fetchall()  # noqa: S608 - constants
            )
            for name, columns in _COMPARED.items()
        }


class Platform:
    """A stack of its own, a topic with all kinds of messages, and a quiet database to compare."""

    def __init__(self, home: Path, settings: Settings, quiet: SecretStr) -> None:
        self.home = home
        self.settings = settings
        self.log = home.parent / "processes.log"
        self._quiet = settings.model_copy(update={"database_url": quiet})
        self._sent = 0

    def send(self, count: int = 30, partitions: int = 2) -> None:
        """The next messages: posts, edits and deletes of them, and garbage."""
        # A new one each time: it knows the partitions of now.
        # What the broker was killed over is sent again, and is in the topic once.
        producer = Producer(
            {
                **client_config(self.settings),
                "enable.idempotence": True,
            }
        )
        for number in range(self._sent, self._sent + count):
            kinds: list[Any] = [
                upsert(str(number), username=f"user{number % 3}@one.example"),
                upsert(str(number - 2), edited_at="2026-11-20T12:01:00Z", content=f"edit {number}"),
                delete(str(number - 7)),
                b"garbage",
            ]
            value = as_value(kinds[number % 4])
            producer.produce(TOPIC, value, partition=number % partitions)
        self._sent += count
        assert producer.flush(60) == 0

    @contextmanager
    def running(
        self, arguments: Sequence[str] = STREAM, *, around: Sequence[str] = ()
    ) -> "Iterator[subprocess.Popen[bytes]]":
        """Python with these arguments, on the platform's settings; killed at the end."""
        process = self.start(arguments, around=around)
        try:
            yield process
        finally:
            end(process)

    def start(
        self, arguments: Sequence[str] = STREAM, *, around: Sequence[str] = ()
    ) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*around, sys.executable, *arguments],
                env={**os.environ, **as_environment(self.settings)},
                cwd=self.home.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill_server(self, find: Callable[[Path], psutil.Process | None]) -> None:
        """SIGKILL for `kafka.find` or `postgres.find`, then up again."""
        process = find(self.home.resolve())
        assert process is not None
        process.kill()
        process.wait(30)
        embedded.up(self.home, topics=[])

    def log_text(self) -> str:
        return self.log.read_text()

    def wait_until_logged(self, text: str, *, after: int = 0) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.log_text()[after:]:
            assert time.monotonic() < deadline, self.log_text()[-2000:]
            time.sleep(0.5)

    def stored(self) -> int:
        """Messages that are in the tables."""
        with transaction(self.settings.postgres_url, snapshot=True) as connection:
            in_windows, rows = window_sum_and_rows(connection)
            assert in_windows == rows
            return sum(read_ledger(connection, TOPIC).values())

    def wait_until_stored(self, process: "subprocess.Popen[bytes]") -> None:
        assert self.waits_for(process), self.log_text()[-2000:]

    def waits_for(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait until all is stored; False as soon as the process has ended before that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.stored() == self._sent:
                return True
            if process.poll() is not None:
                return False
            time.sleep(0.3)
        raise AssertionError(f"{self._sent} not stored: {self.log_text()[-2000:]}")

    def finish(self, spark: "SparkSession") -> None:
        """Read what is left, in this process."""
        drain(lambda: spark, self.settings, report=lambda _line: None)

    def differences(self, spark: "SparkSession") -> list[str]:
        """Tables that are not those of a run without faults over the same messages."""
        drain(lambda: spark, self._quiet, report=lambda _line: None)
        found, expected = tables(self.settings.postgres_url), tables(self._quiet.postgres_url)
        return [name for name in found if found[name] != expected[name]]


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL for it and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def platform_in(folder: Path) -> Iterator[Platform]:
    """A platform whose state lies in `folder`; wiped at the end."""
    home = folder / "state"
    connection = embedded.up(home, topics=[])
    create_topics(connection.kafka_access, [TOPIC], partitions=2)
    try:
        with new_database(connection) as url, new_database(connection) as quiet:
            yield Platform(
                home,
                load_settings(
                    mastodon_assets_home=home,
                    **connection.kafka_settings,
                    kafka_topic=TOPIC,
                    database_url=url,
                    spark_master="local[2]",
                    max_offsets_per_batch=10,
                ),
                quiet,
            )
    finally:
        embedded.down(home, wipe=True)
