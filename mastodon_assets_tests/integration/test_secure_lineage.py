"""The whole lineage once, by its commands, from the simulator's stream to the charts.

The servers want TLS and a login, and the assets run as `masto_writer`: what it may not do, no asset
needs. What the run made is looked at here, and that planted secrets are nowhere but in the
environment.
"""

import base64
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.roles import OWNER, WRITER, create_roles
from mastodon_assets_tests.support.lineage import (
    CHARTS,
    EXPORTS,
    all_files,
    all_rows,
    materializing,
)
from mastodon_assets_tests.support.tls import PASSWORD, USER, SecureServers, secure_servers, with_ca

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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
class Lineage:
    """What the run left: `output` and `arguments` of its processes, and `files`."""

    settings: Settings
    secrets: dict[str, str]
    statuses: dict[str, int]
    output: str
    arguments: str
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lineage]:
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
        superuser = conninfo_to_dict(servers.postgres_url.get_secret_value())["password"]
        yield Lineage(
            settings,
            secrets={
                "Kafka": PASSWORD,
                "writer": WRITER_PASSWORD,
                "owner": OWNER_PASSWORD,
                "superuser": str(superuser),
                "token": mastodon.token,
            },
            statuses=statuses,
            output=output,
            arguments="\n".join(arguments),
            files={name: content for name, content in files.items() if name not in allowed},
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


def test_everything_was_used_as_the_writer_over_tls(lineage: Lineage) -> None:
    assert lineage.statuses["ingest"] == 0, lineage.output[-3000:]
    assert lineage.statuses["asset"] == 0, lineage.output[-6000:]
    assert lineage.statuses["rejected"] == 0, lineage.output[-3000:]
    assert "RUN_SUCCESS" in lineage.output


def test_toots_go_from_the_stream_to_the_charts(lineage: Lineage) -> None:
    made = all_files(lineage.settings)
    assert sorted(made) == sorted(
        [f"{name}.png" for name in CHARTS] + [f"{name}.csv" for name in EXPORTS]
    )
    assert all(made[f"{name}.png"].startswith(b"\x89PNG") for name in CHARTS)
    tables = all_rows(lineage.settings.postgres_url)
    with transaction(lineage.settings.postgres_url, snapshot=True) as connection:
        in_windows, rows = window_sum_and_rows(connection)
        labels = Counter(
            dict(
                connection.execute(
                    "SELECT coalesce(label_str, reason), count(*) FROM masto.toots_sentiment"
                    " GROUP BY 1"
                ).fetchall()
            )
        )
        daily = connection.execute(
            "SELECT sum(n_toosts), sum(n_pos + n_neg + n_neu + n_unscored)"
            " FROM masto.v_sentiment_daily"
        ).fetchone()
        users = connection.execute(
            "SELECT sum(toots_count) FROM masto.user_avg_length_windowed"
        ).fetchone()
        per_day = connection.execute(
            "SELECT sum(toots_count) FROM masto.batch_toots_per_day"
        ).fetchone()
    assert in_windows == rows == len(tables["toots_raw"]) > 80
    assert labels.total() == rows
    assert {"positive", "negative", "unsupported_language"} <= set(labels)
    assert daily == (rows, rows)
    assert users == per_day == (rows,)
    for asset in ("toots_sentiment", *CHARTS, *EXPORTS):
        assert any(f"'{asset}'" in row for row in tables["asset_progress"])


def test_a_second_run_changes_no_row_and_no_file(
    lineage: Lineage, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, made = all_rows(lineage.settings.postgres_url), all_files(lineage.settings)
    for name, value in as_environment(lineage.settings).items():
        monkeypatch.setenv(name, value)
    with materializing() as materialize:
        assert materialize("*").success
    after = all_rows(lineage.settings.postgres_url)
    # A post may have become an hour or a day old meanwhile.
    assert set(tables.pop("toots_engagement")) <= set(after.pop("toots_engagement"))
    assert after == tables
    assert all_files(lineage.settings) == made


def test_what_is_searched_is_what_would_hold_them(lineage: Lineage) -> None:
    assert "org.apache.spark.deploy.SparkSubmit" in lineage.arguments
    events = b"".join(text for name, text in lineage.files.items() if name.startswith("events/"))
    assert b"SparkListenerEnvironmentUpdate" in events
    assert b"SparkListenerSQLExecutionStart" in events
    assert b"masto.toots_raw" in lineage.files["tls/database/postgres/server.log"]
    assert any(name.startswith("home/history/") for name in lineage.files)


@pytest.mark.parametrize("name", ["Kafka", "writer", "owner", "superuser", "token"])
def test_a_planted_secret_is_found_nowhere(lineage: Lineage, name: str) -> None:
    spellings = _spellings(lineage.secrets[name])
    assert not any(spelling in lineage.output.encode() for spelling in spellings)
    assert not any(spelling in lineage.arguments.encode() for spelling in spellings)
    holding = [
        file
        for file, content in lineage.files.items()
        if any(spelling in content for spelling in spellings)
    ]
    assert holding == []
