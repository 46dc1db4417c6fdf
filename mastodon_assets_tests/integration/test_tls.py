"""Every client of Kafka and PostgreSQL on servers that want TLS and a login."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from pydantic import SecretStr

from mastodon_assets.batch.refresh import refresh_batch_table
from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.definitions import build_definitions
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.dead_letters import newest_errors
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.operations.doctor import check_postgres, check_topic
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.sensors import mastodon_stream_sensor
from mastodon_assets.stream.drain import drain
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets_tests.support.records import upsert
from mastodon_assets_tests.support.tls import (
    PASSWORD,
    PLAIN_PASSWORD,
    PLAIN_USER,
    USER,
    SecureServers,
    secure_servers,
    with_ca,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.usefixtures("own_servers")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServers]:
    folder = tmp_path_factory.mktemp("tls")
    with secure_servers(folder, ["mastodon_stream", "mastodon_errors"]) as started:
        migrate(with_ca(started.postgres_url, started.ca))
        yield started


@pytest.fixture
def secure(servers: SecureServers, tmp_path: Path) -> Settings:
    return secure_settings(servers, tmp_path)


def secure_settings(servers: SecureServers, folder: Path, **changes: Any) -> Settings:
    return load_settings(
        **{
            "mastodon_assets_home": folder / "state",
            "kafka_bootstrap_servers": servers.kafka,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_ssl_ca_location": servers.ca,
            "kafka_sasl_username": USER,
            "kafka_sasl_password": PASSWORD,
            "database_url": with_ca(servers.postgres_url, servers.ca),
            "spark_master": "local[2]",
            **changes,
        }
    )


def publish(settings: Settings, *status_ids: str) -> None:
    with publishing(settings) as publisher:
        for status_id in status_ids:
            publisher.publish(upsert(status_id))
        publisher.publish_error(
            reason="contract", error="e", payload=None, origin="stream", instance="one.example"
        )
        publisher.flush()


def test_toots_go_from_the_publisher_to_the_batch_tables(
    secure: Settings, spark: "SparkSession"
) -> None:
    publish(secure, "1", "2", "3")
    drained = drain(lambda: spark, secure, report=lambda line: None)
    assert drained.counts.stored == 3
    refresh_batch_table(lambda: spark, secure.postgres_url, "batch_toots_per_day", min_toots=1)
    with transaction(secure.postgres_url, snapshot=True) as connection:
        assert connection.execute(
            "SELECT toots_count FROM masto.batch_toots_per_day"
        ).fetchall() == [(3,)]
        encrypted = connection.execute(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchall()
    assert encrypted == [(True,)]
    letters, _ = newest_errors(secure, reason="", limit=1)
    assert letters[0].reason == "contract: e"


def test_the_other_mechanism_logs_in_too(
    servers: SecureServers, tmp_path: Path, spark: "SparkSession"
) -> None:
    settings = secure_settings(
        servers,
        tmp_path,
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username=PLAIN_USER,
        kafka_sasl_password=PLAIN_PASSWORD,
    )
    publish(settings, "11")
    assert drain(lambda: spark, settings, report=lambda line: None).counts.messages >= 1


def test_the_sensor_and_the_doctor_see_both_servers(
    secure: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in as_environment(secure).items():
        monkeypatch.setenv(name, value)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance,
            resources={"settings": SettingsResource()},
            repository_def=build_definitions().get_repository_def(),
        ) as context,
    ):
        seen = mastodon_stream_sensor(context)
    assert not isinstance(seen, dg.SkipReason), seen
    findings = [check_topic(secure, "mastodon_stream"), *check_postgres(secure)]
    assert {finding.level for finding in findings} == {"green"}


# What a client does wrong, and the setting that the error names.
_WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "password": ({"kafka_sasl_password": "wrong"}, "KAFKA_SASL_PASSWORD"),
    "user": ({"kafka_sasl_username": "nobody"}, "KAFKA_SASL_USERNAME"),
    "mechanism": ({"kafka_sasl_mechanism": "SCRAM-SHA-256"}, "KAFKA_SASL_MECHANISM"),
    "system's CAs": ({"kafka_ssl_ca_location": None}, "KAFKA_SSL_CA_LOCATION"),
    "another CA": ({}, "KAFKA_SSL_CA_LOCATION"),
    "plain text": (
        {
            "kafka_security_protocol": "PLAINTEXT",
            "kafka_ssl_ca_location": None,
            "kafka_sasl_username": None,
            "kafka_sasl_password": None,
        },
        "KAFKA_SECURITY_PROTOCOL",
    ),
}


@pytest.fixture(scope="module")
def refusals(
    servers: SecureServers, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Exception | None]]:
    """How reading and publishing end, all at once: each waits some seconds for the broker."""
    folder = tmp_path_factory.mktemp("refused")
    waiting: dict[str, list[Future[Exception | None]]] = {}
    with ThreadPoolExecutor(2 * len(_WRONG)) as pool:
        for name, (changes, _) in _WRONG.items():
            other = {"kafka_ssl_ca_location": servers.other_ca} if name == "another CA" else {}
            settings = secure_settings(servers, folder, **changes, **other)
            asked = (read_topic, _publish_nothing)
            waiting[name] = [pool.submit(_error_of, ask, settings) for ask in asked]
    return {name: [future.result() for future in futures] for name, futures in waiting.items()}


def _error_of(ask: Callable[[Settings, str], object], settings: Settings) -> Exception | None:
    try:
        ask(settings, "mastodon_stream")
    except ServiceUnavailableError as error:
        return error
    return None


def _publish_nothing(settings: Settings, topic: str) -> None:
    with publishing(settings):
        pass


@pytest.mark.parametrize("name", _WRONG)
def test_what_the_broker_refuses_is_one_line_that_names_the_setting(
    refusals: dict[str, list[Exception | None]], name: str
) -> None:
    for error in refusals[name]:
        assert error is not None
        assert _WRONG[name][1] in str(error)
        assert "\n" not in str(error)
        assert PASSWORD not in str(error)


def test_a_database_that_another_ca_vouches_for_is_not_trusted(servers: SecureServers) -> None:
    _assert_not_entered(with_ca(servers.postgres_url, servers.other_ca), "certificate verify")


def test_a_database_that_takes_no_plain_text_says_so(servers: SecureServers) -> None:
    url = SecretStr(f"{servers.postgres_url.get_secret_value()}?sslmode=disable")
    _assert_not_entered(url, "no encryption")


def _assert_not_entered(url: SecretStr, reported: str) -> None:
    with pytest.raises(ServiceUnavailableError, match=reported) as raised:
        migrate(url)
    assert "\n" not in str(raised.value)
