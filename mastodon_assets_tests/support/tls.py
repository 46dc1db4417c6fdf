"""A broker and a database that talk only over TLS, with certificates made for the run.

What belongs here: starting and ending both on loopback. The broker wants a login as well.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest
import trustme
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr

from mastodon_assets.embedded import kafka, postgres
from mastodon_assets.embedded.processes import (
    accepts_connections,
    find_server,
    run_tool,
    start_server,
    stop,
)
from mastodon_assets.jvm.maven import fetch_jars
from mastodon_assets_tests.support.other_postgres import WITH_TLS, programs
from mastodon_assets_tests.support.ports import free_port

USER = 'toots "\\ user'
# What a shell, a URL and a JAAS configuration would each read as something else.
PASSWORD = 'planted "quoted\\ %41 s3cret'

_BROKER = """\
process.roles=broker,controller
node.id=1
listeners=CLIENT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal}
listener.security.protocol.map=CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.client.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.client.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_plain="{plain_password}";
listener.name.client.ssl.keystore.type=PEM
listener.name.client.ssl.keystore.location=server.pem
log.dirs=data
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
"""
PLAIN_USER, PLAIN_PASSWORD = "plain", "plain-s3cret"


@dataclass(frozen=True)
class SecureServers:
    """Where both listen, and the file of the CA that vouches for them; `other_ca` does not."""

    kafka: str
    postgres_url: SecretStr
    ca: Path
    other_ca: Path


@contextmanager
def secure_servers(folder: Path, topics: list[str]) -> Iterator[SecureServers]:
    """Both servers up, with `topics` made, and ended afterwards."""
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    certificate = ca.issue_cert("127.0.0.1")
    with _broker(folder, certificate, topics) as servers, _database(folder, certificate) as url:
        yield SecureServers(servers, url, folder / "ca.pem", folder / "other.pem")


def with_ca(url: SecretStr, ca: Path) -> SecretStr:
    """The URL, checking the server's certificate and name."""
    place = url.get_secret_value()
    return SecretStr(f"{place}?sslmode=verify-full&sslrootcert={quote(str(ca), safe='')}")


@contextmanager
def _broker(folder: Path, certificate: trustme.LeafCert, topics: list[str]) -> Iterator[str]:
    home = folder / "kafka"
    home.mkdir()
    port, internal, controller = free_port(), free_port(), free_port()
    (home / "server.pem").write_bytes(_key(certificate) + _chain(certificate))
    (home / "log4j2.xml").write_text(kafka.LOG4J2, encoding="utf-8")
    (home / "server.properties").write_text(
        _BROKER.format(
            port=port, internal=internal, controller=controller, plain_password=PLAIN_PASSWORD
        ),
        encoding="utf-8",
    )
    jars = fetch_jars(
        f"kafka-{kafka.KAFKA_VERSION}", kafka.JARS, size="43 MB", report=lambda line: None
    )
    marker = f"-Dmastodon_assets_tests.support.tls={home}"
    java = kafka._java(jars, heap="512m")
    run_tool(
        "formatting Kafka's storage",
        [
            *(*java, "kafka.tools.StorageTool", "format"),
            *("--cluster-id=AAAAAAAAAAAAAAAAAAAAAA", "--config=server.properties"),
        ],
        cwd=home,
        log=home / "format.log",
    )
    start_server(
        "Kafka",
        [*java, marker, "kafka.Kafka", "server.properties"],
        lambda: accepts_connections(port) and accepts_connections(internal),
        cwd=home,
        log=home / "broker.log",
    )
    try:
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{internal}", "log_level": 0})
        made = admin.create_topics([NewTopic(name, num_partitions=2) for name in topics])
        for topic in made.values():
            topic.result(30)
        login = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        upserted = UserScramCredentialUpsertion(USER, login, PASSWORD.encode())
        for user in admin.alter_user_scram_credentials([upserted]).values():
            user.result(30)
        yield f"127.0.0.1:{port}"
    finally:
        _end(find_server(marker))


@contextmanager
def _database(folder: Path, certificate: trustme.LeafCert) -> Iterator[SecretStr]:
    home = folder / "database"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # The product's own knows no TLS.
        patch.setattr(postgres, "own_programs", lambda: programs(WITH_TLS))
        url = postgres.start(home, lambda line: None)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
            assert row is not None
            data = Path(row[0])
            _write_as_owner_of(data, "server.key", _key(certificate))
            _write_as_owner_of(data, "server.crt", _chain(certificate))
            _write_as_owner_of(data, "pg_hba.conf", b"hostssl all all 127.0.0.1/32 scram-sha-256\n")
            connection.execute("ALTER SYSTEM SET ssl = on")
            connection.execute("SELECT pg_reload_conf()")
        yield SecretStr(url)
    finally:
        server = postgres.find(home)
        if server is not None:
            postgres.stop_server(server)
        postgres.wipe(home)


def _write_as_owner_of(data: Path, name: str, content: bytes) -> None:
    path, owner = data / name, data.stat()
    path.write_bytes(content)
    path.chmod(0o600)
    os.chown(path, owner.st_uid, owner.st_gid)


def _key(certificate: trustme.LeafCert) -> bytes:
    """The key as PKCS 8, the one form that Kafka reads."""
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


def _end(server: psutil.Process | None) -> None:
    if server is not None:
        stop(server, (signal.SIGTERM, 20), (signal.SIGKILL, 10))
