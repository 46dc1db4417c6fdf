"""Planted secrets are found nowhere but in the environment, after everything was used once.

The servers want TLS and a login, and the assets run as `masto_writer`: what it may not do, no asset
needs.
"""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.roles import OWNER, WRITER, create_roles
from mastodon_assets_tests.support.tls import PASSWORD, USER, SecureServers, secure_servers, with_ca

pytestmark = pytest.mark.usefixtures("own_servers")

WRITER_PASSWORD = "planted writer's p%41ss/word"
OWNER_PASSWORD = "planted-owner-s3cret"
COMMANDS = (
    ("mastodon_assets.cli.main", "ingest", "--until-caught-up"),
    ("dagster", "asset", "materialize", "--select", "*", "-m", "mastodon_assets.definitions"),
    ("mastodon_assets.cli.main", "doctor"),
    ("mastodon_assets.cli.main", "status", "--json"),
    ("mastodon_assets.cli.main", "rejected", "list"),
)


@dataclass(frozen=True)
class Traces:
    """What the run left: `output` and `arguments` of its processes, and `files`."""

    secrets: dict[str, str]
    statuses: dict[str, int]
    output: str
    arguments: str
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "tls").mkdir()
    with (
        secure_servers(folder / "tls", ["mastodon_stream", "mastodon_errors"]) as servers,
        running(synthetic_source(seed=1, toots=120, days=2)) as mastodon,
    ):
        settings = _settings(servers, folder, mastodon.base_url, mastodon.token)
        environment = _environment(settings, folder)
        statuses: dict[str, int] = {}
        output = ""
        with _watching_arguments() as arguments:
            for module, *rest in COMMANDS:
                ended = subprocess.run(
                    [sys.executable, "-m", module, *rest],
                    env=environment,
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=500,
                )
                statuses[rest[0]] = ended.returncode
                output += ended.stdout + ended.stderr
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.is_relative_to(folder / "tls" / "kafka" / "data")
        }
    # Where a server must keep them to let us in at all.
    allowed = {"tls/kafka/server.properties", "tls/database/postgres/password"}
    secrets = {
        "Kafka": PASSWORD,
        "writer": WRITER_PASSWORD,
        "owner": OWNER_PASSWORD,
        "superuser": str(conninfo_to_dict(servers.postgres_url.get_secret_value())["password"]),
        "token": mastodon.token,
    }
    return Traces(
        secrets,
        statuses,
        output,
        "\n".join(arguments),
        {name: content for name, content in files.items() if name not in allowed},
    )


def _settings(servers: SecureServers, folder: Path, mastodon: str, token: str) -> Settings:
    admin = with_ca(servers.postgres_url, servers.ca)
    with psycopg.connect(admin.get_secret_value(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
    create_roles(admin, {WRITER: SecretStr(WRITER_PASSWORD), OWNER: SecretStr(OWNER_PASSWORD)})
    migrate(admin)
    parts = conninfo_to_dict(admin.get_secret_value())
    url = (
        f"postgresql://{WRITER}:{quote(WRITER_PASSWORD, safe='')}@{parts['host']}:{parts['port']}"
        f"/{parts['dbname']}"
    )
    return load_settings(
        mastodon_assets_home=folder / "state",
        mastodon_api_base_url=mastodon,
        mastodon_access_token=token,
        kafka_bootstrap_servers=servers.kafka,
        kafka_security_protocol="SASL_SSL",
        kafka_ssl_ca_location=servers.ca,
        kafka_sasl_username=USER,
        kafka_sasl_password=PASSWORD,
        database_url=with_ca(SecretStr(url), servers.ca),
        masto_owner_password=OWNER_PASSWORD,
        spark_master="local[2]",
        model_dir=folder / "models",
        reports_dir=folder / "reports",
        exports_dir=folder / "data",
    )


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    for name in ("home", "spark", "events"):
        (folder / name).mkdir()
    (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    # As an operator may set it up: what the UI's pages show is in the event log.
    (folder / "spark" / "spark-defaults.conf").write_text(
        "spark.eventLog.enabled true\nspark.eventLog.compress false\n"
        f"spark.eventLog.dir {(folder / 'events').as_uri()}\n"
    )
    return {
        **os.environ,
        **as_environment(settings),
        "DAGSTER_HOME": str(folder / "home"),
        "SPARK_CONF_DIR": str(folder / "spark"),
    }


@contextmanager
def _watching_arguments() -> Iterator[set[str]]:
    """The arguments of every process below this one, looked at again and again."""
    seen: set[str] = set()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    seen.add("\0".join(process.cmdline()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        is_over.set()
        watcher.join()


def _spellings(secret: str) -> set[bytes]:
    """How a secret may stand in a text: as it is, in a URL, in JSON, in a JAAS file, in base64."""
    texts = {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1]}
    return {text.encode() for text in texts} | {base64.b64encode(secret.encode()).rstrip(b"=")}


def test_everything_was_used_as_the_writer_over_tls(traces: Traces) -> None:
    assert traces.statuses["ingest"] == 0, traces.output[-3000:]
    assert traces.statuses["asset"] == 0, traces.output[-6000:]
    assert traces.statuses["rejected"] == 0, traces.output[-3000:]
    assert "RUN_SUCCESS" in traces.output


def test_what_is_searched_is_what_would_hold_them(traces: Traces) -> None:
    assert "org.apache.spark.deploy.SparkSubmit" in traces.arguments
    events = b"".join(text for name, text in traces.files.items() if name.startswith("events/"))
    assert b"SparkListenerEnvironmentUpdate" in events
    assert b"SparkListenerSQLExecutionStart" in events
    assert b"masto.toots_raw" in traces.files["tls/database/postgres/server.log"]
    assert any(name.startswith("home/history/") for name in traces.files)


@pytest.mark.parametrize("name", ["Kafka", "writer", "owner", "superuser", "token"])
def test_a_planted_secret_is_found_nowhere(traces: Traces, name: str) -> None:
    spellings = _spellings(traces.secrets[name])
    assert not any(spelling in traces.output.encode() for spelling in spellings)
    assert not any(spelling in traces.arguments.encode() for spelling in spellings)
    holding = [
        file
        for file, content in traces.files.items()
        if any(spelling in content for spelling in spellings)
    ]
    assert holding == []
