"""The settings in the words of the two kinds of Kafka clients; tried on a server in test_tls."""

from pathlib import Path

import pytest

from mastodon_assets.config.settings import load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.kafka.client import client_config, spark_options


def test_without_security_settings_nothing_but_the_servers_is_said() -> None:
    settings = load_settings(kafka_bootstrap_servers="a:1,b:2")
    assert client_config(settings) == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "PLAINTEXT",
        "log_level": 0,
    }
    assert spark_options(settings) == {
        "kafka.bootstrap.servers": "a:1,b:2",
        "kafka.security.protocol": "PLAINTEXT",
        "kafka.isolation.level": "read_committed",
    }


def test_a_password_cannot_end_its_place_in_the_jaas_configuration() -> None:
    settings = load_settings(
        kafka_bootstrap_servers="a:1",
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="u",
        kafka_sasl_password='x" \\ serviceName="y',
    )
    assert spark_options(settings)["kafka.sasl.jaas.config"] == (
        "org.apache.kafka.common.security.plain.PlainLoginModule required"
        ' username="u" password="x\\" \\\\ serviceName=\\"y";'
    )


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff"])
def test_a_file_without_certificates_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    settings = load_settings(
        kafka_bootstrap_servers="a:1", kafka_security_protocol="SSL", kafka_ssl_ca_location=path
    )
    with pytest.raises(SettingsError, match=r"\AKAFKA_SSL_CA_LOCATION=.*PEM certificates\Z"):
        client_config(settings)
