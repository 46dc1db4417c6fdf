"""The embedded stack for real: both servers started, killed, stopped, wiped. About 30 s.

The state folder lies below /root where root runs the tests: the harder case.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from mastodon_assets.config.kafka_access import KafkaAccess
from mastodon_assets.config.settings import load_settings
from mastodon_assets.config.state_folder import StateDamagedError
from mastodon_assets.embedded import kafka, postgres, stack
from mastodon_assets.kafka.client import Refusals, client_config, config_of
from mastodon_assets_tests.support.java import QUICK_JVM

pytestmark = pytest.mark.usefixtures("own_servers")

TOPICS = ["mastodon_stream", "mastodon_errors"]
IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".mastodon_assets_test-", dir=Path.home()))
    try:
        stack.up(folder / "state", topics=TOPICS)
        yield folder / "state"
    finally:
        stack.down(folder / "state", wipe=True)
        shutil.rmtree(folder)


@pytest.fixture
def connection(home: Path) -> stack.Connection:
    return stack.up(home, topics=TOPICS)


def pids(home: Path) -> dict[str, int | None]:
    return {service.name: service.pid for service in stack.status(home)}


def send(connection: stack.Connection, value: bytes) -> None:
    producer = Producer({**config_of(connection.kafka_access), "acks": "all"})
    producer.produce("mastodon_stream", value, partition=0)
    assert producer.flush(30) == 0


def received(connection: stack.Connection) -> list[bytes]:
    consumer = Consumer({**config_of(connection.kafka_access), "group.id": "test"})
    try:
        partition = TopicPartition("mastodon_stream", 0, 0)
        _, end = consumer.get_watermark_offsets(partition, timeout=30)
        consumer.assign([partition])
        return [m.value() or b"" for m in consumer.consume(end, timeout=30)]
    finally:
        consumer.close()


def write_row(connection: stack.Connection, text: str) -> None:
    with psycopg.connect(connection.postgres_url) as database:
        database.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        database.execute("INSERT INTO kept VALUES (%s)", [text])


def rows(connection: stack.Connection) -> list[str]:
    with psycopg.connect(connection.postgres_url) as database:
        return [text for (text,) in database.execute("SELECT text FROM kept ORDER BY text")]


def written(home: Path) -> stack.Connection:
    """What `connection.json` says, which is what the settings fall back to."""
    return stack.Connection(**json.loads((home / "connection.json").read_text()))


def test_up_writes_where_to_connect_for_the_owner_only(
    home: Path, connection: stack.Connection
) -> None:
    path = home / "connection.json"
    assert json.loads(path.read_text()) == {
        "kafka_bootstrap_servers": connection.kafka_bootstrap_servers,
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "mastodon",
        "kafka_sasl_password": connection.kafka_sasl_password,
        "postgres_url": connection.postgres_url,
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert written(home) == connection


def test_the_broker_starts_with_the_options_that_kafkas_own_scripts_read(
    home: Path, connection: stack.Connection
) -> None:
    broker = kafka.find(home.resolve())
    assert broker is not None
    # The tests' own choice, which is in KAFKA_JVM_PERFORMANCE_OPTS.
    assert set(QUICK_JVM.split()) <= set(broker.cmdline())


def test_a_second_up_changes_nothing(home: Path, connection: stack.Connection) -> None:
    before = pids(home)
    said: list[str] = []
    assert stack.up(home, topics=TOPICS, report=said.append) == connection
    assert pids(home) == before
    assert None not in before.values()
    assert said == []


def test_the_key_in_an_earlier_connection_file_moves_to_its_own_even_if_that_is_damaged(
    home: Path, connection: stack.Connection
) -> None:
    path, key_file = home / "connection.json", home / "withdrawn.key"
    made = key_file.read_text()
    assert key_file.stat().st_mode & 0o777 == 0o600
    earlier = "0123456789abcdef" * 4
    path.write_text(f'{{"postgres_url": "lost, "withdrawn_key": "{earlier}"')
    key_file.unlink()
    try:
        assert stack.up(home, topics=TOPICS) == connection == written(home)
        assert key_file.read_text() == f"{earlier}\n"
        assert earlier not in path.read_text()
    finally:
        key_file.write_text(made)


def test_status_shows_what_runs_and_where(home: Path, connection: stack.Connection) -> None:
    broker, server = stack.status(home)
    assert (broker.name, broker.state) == ("Kafka", "running")
    assert broker.detail == connection.kafka_bootstrap_servers
    assert (server.name, server.state) == ("PostgreSQL", "running")
    assert f"@{server.detail}/" in connection.postgres_url


def test_topics_have_four_partitions_and_no_other_topic_comes_by_use(
    connection: stack.Connection,
) -> None:
    admin = AdminClient(config_of(connection.kafka_access))
    admin.list_topics("never_created", timeout=30)
    topics = admin.list_topics(timeout=30).topics
    assert {name: len(topic.partitions) for name, topic in topics.items() if name[0] != "_"} == {
        "mastodon_stream": 4,
        "mastodon_errors": 4,
    }


def test_the_database_counts_in_utc_and_knows_the_case_of_all_scripts(
    connection: stack.Connection,
) -> None:
    with psycopg.connect(connection.postgres_url) as database:
        row = database.execute(
            "SELECT current_setting('timezone'), current_setting('server_encoding'), "
            "current_setting('fsync'), lower('ÄÖЖ')"
        ).fetchone()
    assert row == ("UTC", "UTF8", "on", "äöж")


def test_the_servers_listen_on_loopback_only(home: Path, connection: stack.Connection) -> None:
    for pid in pids(home).values():
        listening = [
            listener
            for listener in psutil.Process(pid).net_connections(kind="inet")
            if listener.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert {listener.laddr.ip.removeprefix("::ffff:") for listener in listening} == {
            "127.0.0.1"
        }


def test_the_passwords_are_in_no_process_list_no_log_and_no_repr(
    home: Path, connection: stack.Connection
) -> None:
    of_postgres = (home / "postgres" / "password").read_text().strip()
    of_kafka = (home / "kafka" / "password").read_text().strip()
    assert of_postgres in connection.postgres_url
    assert of_kafka == connection.kafka_sasl_password
    for name in ("password", "server.properties"):
        assert (home / "kafka" / name).stat().st_mode & 0o777 == 0o600
    texts = [repr(connection), repr(connection.kafka_access)]
    texts += [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    logs = [*home.glob("kafka/*.log*"), *home.glob("postgres/*.log")]
    texts += [log.read_text() for log in logs]
    assert len(logs) >= 4
    for password in (of_postgres, of_kafka):
        assert len(password) >= 32
        assert not any(password in text for text in texts)


def test_the_broker_and_its_controller_answer_nobody_without_the_password(
    home: Path, connection: stack.Connection
) -> None:
    right = connection.kafka_access
    controller = f"127.0.0.1:{(home / 'kafka' / 'controller.port').read_text().strip()}"

    def answer(access: KafkaAccess) -> str:
        refusals = Refusals()
        config: dict[str, Any] = {**config_of(access), "error_cb": refusals.record}
        admin = AdminClient(config)
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=2)
        admin.poll(0)
        return str(refusals.unavailable(access.servers))

    assert "does not answer" in answer(KafkaAccess(right.servers))
    for wrong in (
        replace(right, sasl_username="admin"),
        replace(right, sasl_password=SecretStr("mastodon")),
        replace(right, sasl_password=SecretStr("mastodon"), servers=controller),
    ):
        assert "refuses access" in answer(wrong)
    # With the login, the controller says that it has no list of topics.
    assert "refuses access" not in answer(replace(right, servers=controller))


def test_a_broker_without_a_login_gets_one_and_keeps_its_data(
    home: Path, connection: stack.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions started it so, and left a connection.json without login."""
    send(connection, b"from before")
    before = received(connection)
    stack.down(home)
    monkeypatch.setattr(kafka, "_SECURITY_PROTOCOL", "PLAINTEXT")
    stack.up(home, topics=TOPICS)
    (home / "kafka" / "password").unlink()
    path = home / "connection.json"
    document = json.loads(path.read_text())
    names = ("kafka_bootstrap_servers", "postgres_url")
    path.write_text(json.dumps({name: document[name] for name in names}))
    settings = load_settings(mastodon_assets_home=home)
    assert "mastodon_stream" in AdminClient(client_config(settings)).list_topics(timeout=9).topics
    monkeypatch.undo()

    again = stack.up(home, topics=TOPICS)

    assert received(again) == before
    assert b"from before" in before
    assert written(home) == again
    assert again.kafka_sasl_password != connection.kafka_sasl_password


def test_the_database_lets_nobody_in_without_the_password(connection: stack.Connection) -> None:
    password = connection.postgres_url.split(":")[2].split("@")[0]
    for wrong in ("", "mastodon", "postgres"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(connection.postgres_url.replace(password, wrong)).close()


@pytest.mark.skipif(not IS_ROOT, reason="only root has to run PostgreSQL as another user")
def test_root_runs_postgresql_as_another_user_outside_the_state_folder(
    home: Path, connection: stack.Connection
) -> None:
    server = postgres.find(home)
    assert server is not None
    assert server.uids().real != 0
    place = Path((home / "postgres" / "location").read_text().strip())
    assert place.stat().st_uid == 0
    assert (place / "data").stat().st_mode & 0o777 == 0o700
    assert (place / "data").stat().st_uid == server.uids().real


def test_after_kill_9_up_brings_both_back_with_their_data(
    home: Path, connection: stack.Connection
) -> None:
    send(connection, b"before the crash")
    write_row(connection, "before the crash")
    before = pids(home)
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid) for pid in before.values() if psutil.pid_exists(pid)])
    assert [service.state for service in stack.status(home)] == ["stopped", "stopped"]

    again = stack.up(home, topics=TOPICS)

    assert again == connection
    assert not set(before.values()) & set(pids(home).values())
    assert received(again)[-1] == b"before the crash"
    assert rows(again) == ["before the crash"]


def test_a_server_that_cannot_be_reached_is_reported_and_restarted_on_its_data(
    home: Path, connection: stack.Connection
) -> None:
    server = postgres.find(home)
    assert server is not None
    data = server.cmdline()[server.cmdline().index("-D") + 1]
    # Without the note of its port it is out of reach.
    (home / "postgres" / "port").unlink()
    assert stack.status(home)[1].state == "unhealthy"

    again = stack.up(home, topics=TOPICS)

    successor = postgres.find(home)
    assert successor is not None
    assert successor.pid != server.pid
    assert data in successor.cmdline()
    assert stack.status(home)[1].state == "running"
    assert written(home) == again


def test_a_port_that_another_program_took_is_left_to_it(
    home: Path, connection: stack.Connection
) -> None:
    write_row(connection, "before the move")
    stack.down(home)
    assert [service.state for service in stack.status(home)] == ["stopped", "stopped"]
    taken = [kafka.port(home), postgres.port(home)]
    with ExitStack() as squatters:
        for port in taken:
            squatter = squatters.enter_context(socket.socket())
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", port))
            squatter.listen()

        moved = stack.up(home, topics=TOPICS)

        assert not {kafka.port(home), postgres.port(home)} & set(taken)
        assert written(home) == moved != connection
        assert "before the move" in rows(moved)


def test_down_leaves_data_and_wipe_leaves_only_what_is_not_ours(tmp_path: Path) -> None:
    home = tmp_path / "a state, with a comma"
    (home / "dagster").mkdir(parents=True)
    try:
        stack.up(home, topics=["t"])
        storage_path = home / "postgres" / "location"
        place = Path(storage_path.read_text().strip()) if IS_ROOT else home / "postgres"
        stack.down(home)
        assert pids(home) == {"Kafka": None, "PostgreSQL": None}
        assert (place / "data").is_dir()
        assert (home / "kafka" / "data" / "t-3").is_dir()
    finally:
        stack.down(home, wipe=True)
    assert [path.name for path in home.iterdir()] == ["dagster"]
    assert not (place / "data").exists()


def test_what_a_deleted_state_folder_left_running_is_found_and_stopped(
    home: Path, connection: stack.Connection
) -> None:
    running = pids(home)
    place = home / "postgres" / "location"
    outside = Path(place.read_text().strip()) if IS_ROOT else None
    shutil.rmtree(home)

    stack.down(home)

    assert not any(psutil.pid_exists(pid) for pid in running.values() if pid)
    if outside:
        shutil.rmtree(outside)


# The command, but it waits a second, not twenty, for workers of a killed server.
_IMPATIENT = """
from mastodon_assets.cli.main import main
from mastodon_assets.embedded import processes
processes._SECONDS_TO_UNLOCK = 1
main()
"""
_UNSHARE = ["unshare", *([] if IS_ROOT else ["-r"]), "--pid", "--fork", "--mount-proc"]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode != 0,
    reason="this machine allows no process namespaces",
)
@pytest.mark.parametrize("command", ["up", "down"])
def test_a_stack_in_use_is_refused_from_another_process_namespace(
    command: str, home: Path, connection: stack.Connection
) -> None:
    before = pids(home)
    refused = subprocess.run(
        [*_UNSHARE, sys.executable, "-c", _IMPATIENT, command],
        env={**os.environ, "MASTODON_ASSETS_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1, refused.stderr
    assert "where this process cannot see it" in refused.stderr
    assert pids(home) == before
    write_row(connection, f"after {command} elsewhere")
    assert f"after {command} elsewhere" in rows(connection)


def test_postgresql_starts_though_another_process_has_the_id_of_the_ended_one(
    home: Path, connection: stack.Connection
) -> None:
    server = postgres.find(home)
    assert server is not None
    data = Path(server.cmdline()[server.cmdline().index("-D") + 1])
    write_row(connection, "before the restart")
    note = (data / "postmaster.pid").read_text()
    server.kill()
    server.wait()
    # A process of the same user, as after a restart of a container.
    uid = data.stat().st_uid
    stranger = subprocess.Popen(["sleep", "600"], user=uid if IS_ROOT else None)
    try:
        (data / "postmaster.pid").write_text(note.replace(str(server.pid), str(stranger.pid), 1))
        again = stack.up(home, topics=TOPICS)
        assert "before the restart" in rows(again)
    finally:
        stranger.kill()
        stranger.wait()


def test_after_a_deleted_state_folder_up_starts_from_nothing(tmp_path: Path) -> None:
    """What a broker leaves that ends in a deleted folder is no hindrance, messages are."""
    left = tmp_path / "data" / "mastodon_stream-0"
    left.mkdir(parents=True)
    (left / "00000000000000000000.log").touch()
    (tmp_path / "data" / "recovery-point-offset-checkpoint").write_text("0\n")
    kafka.clear_leftovers(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    left.mkdir(parents=True)
    (left / "00000000000000000000.log").write_bytes(b"toots")
    with pytest.raises(StateDamagedError, match="contains messages but no"):
        kafka.clear_leftovers(tmp_path / "data")
    assert (left / "00000000000000000000.log").exists()
