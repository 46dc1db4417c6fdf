"""The stream through kills of everything it works with: the tables are those of a quiet run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from mastodon_assets.local import kafka, postgres
from mastodon_assets.local import stack as embedded
from mastodon_assets.settings import Settings, as_environment, load_settings
from mastodon_assets.toots.drain import drain
from mastodon_assets.toots.ledger import read_ledger
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.conftest import new_database
from mastodon_assets_tests.faults.test_killed_drain import _tables
from mastodon_assets_tests.records import as_value, delete, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TOPIC = "restarted"
_PATIENCE_SECONDS = 240


class _Platform:
    """A stack of its own, whose servers may be killed, and a topic with all kinds of messages."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self.home = home
        self.settings = settings
        self.log = home.parent / "stream.log"
        self._sent = 0

    def send(self, partitions: int = 2) -> None:
        """The next thirty messages: posts, edits and deletes of them, and garbage."""
        # A new one each time: it knows the partitions of now.
        producer = Producer({"bootstrap.servers": self.settings.kafka_servers, "log_level": 0})
        for number in range(self._sent, self._sent + 30):
            kinds: list[Any] = [
                upsert(str(number), username=f"user{number % 3}@one.example"),
                upsert(str(number - 2), edited_at="2026-11-20T12:01:00Z", content=f"edit {number}"),
                delete(str(number - 7)),
                b"garbage",
            ]
            value = as_value(kinds[number % 4])
            producer.produce(_TOPIC, value, partition=number % partitions)
        self._sent += 30
        assert producer.flush(60) == 0

    @contextmanager
    def streaming(self) -> Iterator["subprocess.Popen[bytes]"]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mastodon_assets.cli", "stream"],
                env={**os.environ, **as_environment(self.settings)},
                cwd=self.home.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait_until_told(self, text: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.5)

    def wait_until_stored(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            assert process.poll() is None, self.log.read_text()[-2000:]
            with transaction(self.settings.postgres_url, snapshot=True) as connection:
                if sum(read_ledger(connection, _TOPIC).values()) == self._sent:
                    in_windows, rows = window_sum_and_rows(connection)
                    assert in_windows == rows
                    return
            time.sleep(0.3)
        raise AssertionError(f"{self._sent} not stored: {self.log.read_text()[-2000:]}")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[_Platform]:
    home = tmp_path / "state"
    connection = embedded.up(home, topics=[])
    kafka.create_topics(connection.kafka_bootstrap_servers, [_TOPIC], partitions=2)
    try:
        with new_database(connection) as url:
            yield _Platform(
                home,
                load_settings(
                    mastodon_assets_home=home,
                    kafka_bootstrap_servers=connection.kafka_bootstrap_servers,
                    kafka_topic=_TOPIC,
                    database_url=url,
                    spark_master="local[2]",
                    max_offsets_per_batch=10,
                ),
            )
    finally:
        embedded.down(home, wipe=True)


def _kill(platform: _Platform, find: Callable[[Path], Any]) -> None:
    server = find(platform.home.resolve())
    assert server is not None
    server.kill()
    server.wait(30)
    embedded.up(platform.home, topics=[])


def test_kills_of_broker_database_and_stream_and_a_new_partition_change_no_row(
    platform: _Platform, spark: "SparkSession"
) -> None:
    with platform.streaming() as stream:
        platform.send()
        platform.wait_until_stored(stream)
        with platform.streaming() as stand_by:
            platform.wait_until_told("standing by until it ends")
            platform.send()
            _kill(platform, postgres.find)
            platform.send()
            platform.wait_until_stored(stream)
            _kill(platform, kafka.find)
            platform.send()
            platform.wait_until_stored(stream)
            admin = AdminClient({"bootstrap.servers": platform.settings.kafka_servers})
            admin.create_partitions([NewPartitions(_TOPIC, 3)])[_TOPIC].result(30)
            platform.send(partitions=3)
            platform.wait_until_stored(stream)
            os.killpg(stream.pid, signal.SIGKILL)
            stream.wait()
            platform.send(partitions=3)
            platform.wait_until_stored(stand_by)
    log = platform.log.read_text()
    assert "Traceback" not in log
    assert "StackOverflowError" not in log

    connection = embedded.up(platform.home, topics=[])
    with new_database(connection) as undisturbed:
        quiet = platform.settings.model_copy(update={"database_url": undisturbed})
        drain(lambda: spark, quiet, report=print)
        assert _tables(platform.settings.postgres_url) == _tables(undisturbed)
