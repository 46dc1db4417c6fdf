"""Configuration of Kafka clients: servers, encryption, login.

What belongs here: the settings in the terms of librdkafka (confluent-kafka) and of Spark's reader,
and the reasons for which brokers refuse a client. Requests to Kafka are in the modules that make
them.
"""

import ssl
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError

from mastodon_assets.config.kafka_access import KafkaAccess
from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import ServiceUnavailableError, SettingsError

_LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
# librdkafka's codes for an encryption or a login that failed; it has no public names for them.
_SSL_FAILED = KafkaError._SSL
_LOGIN_FAILED = KafkaError._AUTHENTICATION


class Refusals:
    """Records why brokers refuse a client; librdkafka itself only reports a timeout.

    `record` is the client's `error_cb`; it is called while the client polls.
    """

    def __init__(self) -> None:
        self._newest: KafkaError | None = None

    def record(self, error: KafkaError) -> None:
        """Keep the newest failure of encryption or login."""
        if error.code() in (_SSL_FAILED, _LOGIN_FAILED):
            self._newest = error

    def unavailable(self, servers: str) -> ServiceUnavailableError:
        """Return the error for a client that got no answer."""
        if self._newest is None:
            return ServiceUnavailableError(
                f"Kafka at {servers} does not answer; run: mastodon-assets up"
                " (or check KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL)"
            )
        reason = self._newest.str().splitlines()[0]
        if self._newest.code() == _SSL_FAILED:
            advice = "check KAFKA_SSL_CA_LOCATION and KAFKA_SECURITY_PROTOCOL"
        else:
            advice = "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM"
        return ServiceUnavailableError(f"Kafka at {servers} refuses access ({reason}); {advice}")


def client_config(settings: Settings, refusals: Refusals | None = None) -> dict[str, Any]:
    """Return librdkafka's configuration for any client. It holds the password: never print it.

    Raises:
        SettingsError: No broker is known, or the CA's file cannot be read.
    """
    config = config_of(settings.kafka_access)
    if refusals is not None:
        config["error_cb"] = refusals.record
    return config


def config_of(access: KafkaAccess) -> dict[str, Any]:
    """Return librdkafka's configuration for any client of a broker. It holds the password.

    Raises:
        SettingsError: The CA's file cannot be read.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": access.servers,
        "security.protocol": access.security_protocol,
        # librdkafka prints to stderr; what matters arrives as an error or a delivery report.
        "log_level": 0,
    }
    if access.uses_sasl:
        assert access.sasl_password is not None, "the settings demand it"
        config |= {
            "sasl.mechanism": access.sasl_mechanism,
            "sasl.username": access.sasl_username,
            "sasl.password": access.sasl_password.get_secret_value(),
        }
    if certificates := _certificates(access.ssl_ca_location):
        config["ssl.ca.pem"] = certificates
    return config


def spark_options(settings: Settings) -> dict[str, str]:
    """Return the options for Spark's Kafka source. Executors get all of it from the driver.

    They hold the password. Pass them as options of the source: no command line or plan shows those.

    Raises:
        SettingsError: No broker is known, or the CA's file cannot be read.
    """
    access = settings.kafka_access
    options = {
        "kafka.bootstrap.servers": access.servers,
        "kafka.security.protocol": access.security_protocol,
        "kafka.isolation.level": "read_committed",
    }
    if access.uses_sasl:
        assert access.sasl_password is not None, "the settings demand it"
        options |= {
            "kafka.sasl.mechanism": access.sasl_mechanism,
            "kafka.sasl.jaas.config": (
                f"{_LOGIN_MODULES[access.sasl_mechanism]} required"
                f" username={_quoted(access.sasl_username or '')}"
                f" password={_quoted(access.sasl_password.get_secret_value())};"
            ),
        }
    if certificates := _certificates(access.ssl_ca_location):
        options |= {
            "kafka.ssl.truststore.type": "PEM",
            "kafka.ssl.truststore.certificates": certificates,
        }
    return options


def _quoted(value: str) -> str:
    """Quote a string for the parser of the JAAS configuration."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _certificates(path: Path | None) -> str | None:
    """Return the CA's certificates as PEM text."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except OSError as error:
        # An SSLError is an OSError too.
        reason = error.strerror or type(error).__name__
        raise SettingsError(
            f"KAFKA_SSL_CA_LOCATION={path}: no certificates ({reason}); allowed: a file of PEM"
            " certificates"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"KAFKA_SSL_CA_LOCATION={path}: allowed: a file of PEM certificates"
        ) from error
    return text
