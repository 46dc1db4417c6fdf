"""The Kafka broker of the embedded stack: one node, KRaft, loopback only.

What belongs here: the broker's files, its start, its upgrade and its end.

Its folder `kafka/` in the state folder contains: `broker.port` and `controller.port`, the ports of
the last start, used again while they are free; `password`, which clients and the broker itself log
in with; `server.properties` and `log4j2.xml`, rewritten at each start; `data/`, the topics;
`broker.log`; after an upgrade `admin.properties` and `features.log`.
"""

import os
import re
import secrets
import shlex
import shutil
import signal
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from threading import Event

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from mastodon_assets.config.kafka_access import KafkaAccess
from mastodon_assets.config.state_folder import StateDamagedError
from mastodon_assets.embedded.processes import (
    ServerStartError,
    accepts_connections,
    choose_port,
    find_server,
    is_locked,
    read_port,
    run_tool,
    server_lock,
    start_server,
    stop,
)
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.jvm.java import java_home
from mastodon_assets.jvm.maven import Coordinate, Report, cache_dir, fetch_jars
from mastodon_assets.kafka.client import config_of
from mastodon_assets.kafka.topics import MAX_ERROR_BYTES

KAFKA_VERSION = "4.1.1"
# The second carries the broker's log messages; without it there are none.
JARS = (
    Coordinate("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    Coordinate("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
)
# Fetched for an upgrade only. What it needs is among the jars above.
TOOLS = (Coordinate("org.apache.kafka", "kafka-tools", KAFKA_VERSION),)
USER = "mastodon"
_SECURITY_PROTOCOL, _MECHANISM = "SASL_PLAINTEXT", "PLAIN"
# Any user of the machine can connect to loopback. Both listeners ask for a login, because the
# controller's takes administrative requests too.
# Paths are relative to the broker's folder: the state folder may be moved, and Kafka splits paths
# at a comma. The broker itself deletes nothing, because unread messages would be lost; retention
# deletes what the tables have read. A file of messages ends after a day, because only whole files
# are deleted. A killed broker can restart only after its session has ended, by default 9 s.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=BROKER://127.0.0.1:{port}
listener.security.protocol.map=BROKER:{protocol},CONTROLLER:{protocol}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms={mechanism}
sasl.mechanism.inter.broker.protocol={mechanism}
sasl.mechanism.controller.protocol={mechanism}
listener.name.broker.plain.sasl.jaas.config={login}
listener.name.controller.plain.sasl.jaas.config={login}
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={data}
log.retention.ms=-1
message.max.bytes={max_message_bytes}
log.roll.hours=24
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
"""
_LOGIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required"
    ' username="{user}" password="{password}" user_{user}="{password}";'
)
LOG4J2 = """\
<Configuration status="ERROR">
  <Appenders>
    <RollingFile name="file" fileName="broker.log" filePattern="broker.log.%i">
      <PatternLayout pattern="%d{yyyy-MM-dd'T'HH:mm:ssX}{UTC} %p %c: %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="5 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""


def start(
    home: Path, report: Report, cancelled: Event | None = None, *, upgrade: bool = False
) -> KafkaAccess:
    """Start the broker of the state folder `home` if needed; return how to reach it.

    Args:
        home: The state folder.
        report: Gets a line per step that takes long.
        cancelled: If it is set meanwhile, the start ends.
        upgrade: Whether to raise the versions of the features that the stored metadata use.

    Raises:
        ArtifactError: The programs cannot be downloaded.
        JavaNotFoundError: There is no Java.
        ServerElsewhereError: A broker that this process cannot see uses the state folder.
        ServerStartError: The broker does not start.
        ServerStopError: A broker that does not answer cannot be stopped.
        StateDamagedError: The broker's data are damaged.
    """
    folder = home / "kafka"
    broker = find(home)
    runs_already = broker is not None and answers(home)
    if runs_already and not upgrade:
        return _access(home)
    if broker and not runs_already:
        # One that an earlier version started knows no login.
        report("Kafka runs but does not answer to its login; restarting it")
        stop_server(broker)
    jars = fetch_jars(
        f"kafka-{KAFKA_VERSION}", JARS, size="43 MB, about half a minute", report=report
    )
    folder.mkdir(mode=0o700, exist_ok=True)
    if not runs_already:
        with server_lock(_lock(home), "Kafka") as lock:
            _run(home, jars, lock, report, cancelled)
    if upgrade:
        _raise_features(home, jars, report)
    return _access(home)


def _raise_features(home: Path, jars: Path, report: Report) -> None:
    """Let the stored metadata use the features of this version, as those of a new folder do.

    Raises:
        ArtifactError: Kafka's tool cannot be downloaded.
        ServerStartError: It fails.
    """
    folder = home / "kafka"
    tools = fetch_jars(
        f"kafka-tools-{KAFKA_VERSION}", TOOLS, size="1 MB", report=report, transitive=False
    )
    login = _LOGIN.format(user=USER, password=_password(home))
    write_atomically(
        folder / "admin.properties",
        f"security.protocol={_SECURITY_PROTOCOL}\nsasl.mechanism={_MECHANISM}\n"
        f"sasl.jaas.config={login}\n",
    )

    def features(*arguments: str) -> str:
        log = folder / "features.log"
        run_tool(
            "upgrading Kafka's metadata",
            [
                *_java(jars, heap="256m", more_jars=tools),
                "org.apache.kafka.tools.FeatureCommand",
                *(
                    f"--bootstrap-server=127.0.0.1:{port(home)}",
                    "--command-config=admin.properties",
                ),
                *arguments,
            ],
            cwd=folder,
            log=log,
        )
        return log.read_text(encoding="utf-8")

    newest = features("version-mapping")
    before, after = _metadata_version(features("describe")), _metadata_version(newest)
    if before == after:
        return
    features("upgrade", *(f"--feature={level}" for level in _levels(newest)))
    report(f"Kafka's metadata version was raised from {before} to {after}")


def _metadata_version(printed: str) -> str:
    """Find the version in what `describe` or `version-mapping` printed.

    Raises:
        ServerStartError: There is none.
    """
    found = re.search(
        r"metadata\.version(?:=\d+ \((\S+)\)|.*FinalizedVersionLevel: (\S+))", printed
    )
    if found is None:
        raise ServerStartError(f"Kafka names no metadata version: {printed.strip()[:200]}")
    return found[1] or found[2]


def _levels(printed: str) -> list[str]:
    """Return each feature with its level, from what `version-mapping` printed.

    The version of KRaft stays: with it the voters, and so the controller's port, would be stored.
    """
    levels = re.findall(r"^(\S+\.version=[1-9]\d*)", printed, re.MULTILINE)
    return [level for level in levels if not level.startswith("kraft.")]


def _run(home: Path, jars: Path, lock: int, report: Report, cancelled: Event | None) -> None:
    folder = home / "kafka"
    if not read_text(folder / "password"):
        # Nothing that is stored depends on it.
        write_atomically(folder / "password", f"{secrets.token_urlsafe(24)}\n")
    broker_port = choose_port(folder / "broker.port")
    controller_port = choose_port(folder / "controller.port", avoid=[broker_port])
    (folder / "log4j2.xml").write_text(LOG4J2, encoding="utf-8")
    _write_properties(folder / "server.properties", broker_port, controller_port, data="data")
    if not (folder / "data" / "meta.properties").exists():
        _format(folder, jars, broker_port, controller_port)
    report(f"starting Kafka on 127.0.0.1:{broker_port}")
    start_server(
        "Kafka",
        [*_java(jars, heap="512m"), _marker(home), "kafka.Kafka", "server.properties"],
        lambda: answers(home),
        cwd=folder,
        log=folder / "broker.log",
        lock=lock,
        cancelled=cancelled,
    )


def find(home: Path) -> psutil.Process | None:
    """Find the running broker of the state folder `home`."""
    return find_server(_marker(home))


def port(home: Path) -> int | None:
    """Return the broker's port of its last start; None if it never started."""
    return read_port(home / "kafka" / "broker.port")


def answers(home: Path) -> bool:
    """Return whether the broker lists its topics to whoever has its password."""
    broker_port = port(home)
    if broker_port is None or not accepts_connections(broker_port):
        return False
    try:
        AdminClient(config_of(_access(home))).list_topics(timeout=5)
    except KafkaException:
        return False
    return True


def _access(home: Path) -> KafkaAccess:
    return KafkaAccess(
        f"127.0.0.1:{port(home)}",
        _SECURITY_PROTOCOL,
        _MECHANISM,
        USER,
        SecretStr(_password(home)),
    )


def _password(home: Path) -> str:
    return read_text(home / "kafka" / "password") or ""


def stop_server(broker: psutil.Process) -> None:
    """Let the broker flush its data and end.

    Raises:
        ServerStopError: The broker does not end.
    """
    stop(broker, (signal.SIGTERM, 20), (signal.SIGKILL, 10))


def wipe(home: Path) -> None:
    """Remove everything that `start` created in `home`.

    Raises:
        ServerElsewhereError: A broker that this process cannot see uses it.
    """
    if (home / "kafka").exists():
        with server_lock(_lock(home), "Kafka"):
            shutil.rmtree(home / "kafka")


def is_elsewhere(home: Path) -> bool:
    """Return whether a broker runs on the state folder that this process cannot see."""
    return find(home) is None and is_locked(_lock(home))


def _lock(home: Path) -> Path:
    return home / "kafka" / "lock"


def _marker(home: Path) -> str:
    return f"-Dmastodon_assets.state_folder={home}"


def _java(jars: Path, heap: str, *, more_jars: Path | None = None) -> list[str]:
    path = [f"{folder}/*" for folder in (jars, more_jars) if folder is not None]
    return [
        str(java_home(cache_dir()) / "bin" / "java"),
        f"-Xmx{heap}",
        # As Kafka's own scripts do.
        *shlex.split(os.environ.get("KAFKA_JVM_PERFORMANCE_OPTS", "")),
        "-XX:+ExitOnOutOfMemoryError",
        "-Dlog4j2.configurationFile=log4j2.xml",
        *("-cp", os.pathsep.join(path)),
    ]


def _write_properties(path: Path, port: int, controller_port: int, data: str) -> None:
    password = read_text(path.with_name("password"))
    text = SERVER_PROPERTIES.format(
        port=port,
        controller_port=controller_port,
        data=data,
        protocol=_SECURITY_PROTOCOL,
        mechanism=_MECHANISM,
        login=_LOGIN.format(user=USER, password=password),
        max_message_bytes=MAX_ERROR_BYTES,
    )
    write_atomically(path, text)


def clear_leftovers(data: Path) -> None:
    """Remove files that a broker recreated in its deleted folder before it ended.

    Raises:
        StateDamagedError: The folder contains messages.
    """
    if any(segment.stat().st_size for segment in data.rglob("*.log")):
        raise StateDamagedError(
            f"{data} contains messages but no meta.properties; restore that file, or delete all"
            f" data: mastodon-assets down --wipe"
        )
    if data.exists():
        shutil.rmtree(data)


def _format(folder: Path, jars: Path, port: int, controller_port: int) -> None:
    """Create `data/`, complete or not at all.

    Raises:
        ServerStartError: Kafka's tool fails.
        StateDamagedError: There are messages of an earlier broker.
    """
    clear_leftovers(folder / "data")
    shutil.rmtree(folder / "data.partial", ignore_errors=True)
    _write_properties(folder / "format.properties", port, controller_port, data="data.partial")
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    command = [*_java(jars, heap="256m"), "kafka.tools.StorageTool", "format"]
    run_tool(
        "formatting Kafka's storage",
        [*command, f"--cluster-id={cluster_id}", "--config=format.properties"],
        cwd=folder,
        log=folder / "format.log",
    )
    (folder / "data.partial").rename(folder / "data")
