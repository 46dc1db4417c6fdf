"""How clients of Kafka are configured: servers, encryption, who we are.

What belongs here: the settings in the words of librdkafka (confluent-kafka) and of Spark's reader,
and what a broker had against us. What is asked of Kafka stands with whoever asks.
"""

import ssl
from typing import Any

from confluent_kafka import KafkaError

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import ServiceUnavailableError, SettingsError

_LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
# librdkafka's codes of "it is there, but we shall not talk": an encryption or a login that failed.
_REFUSALS = (KafkaError._SSL, KafkaError._AUTHENTICATION)


class Refusals:
    """What brokers had against a client; librdkafka itself only says that it timed out.

    `hear` is the client's `error_cb`; it is called while the client polls.
    """

    def __init__(self) -> None:
        self._newest: KafkaError | None = None

    def hear(self, error: KafkaError) -> None:
        if error.code() in _REFUSALS:
            self._newest = error

    def unavailable(self, servers: str) -> ServiceUnavailableError:
        """The error for a client that got no answer."""
        if self._newest is None:
            return ServiceUnavailableError(
                f"Kafka at {servers} does not answer; run: mastodon-assets up"
                " (or look at KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL)"
            )
        reason = self._newest.str().splitlines()[0]
        if self._newest.code() == KafkaError._SSL:
            advice = "look at KAFKA_SSL_CA_LOCATION and KAFKA_SECURITY_PROTOCOL"
        else:
            advice = "look at KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM"
        return ServiceUnavailableError(f"Kafka at {servers} refuses us ({reason}); {advice}")


def client_config(settings: Settings, refusals: Refusals | None = None) -> dict[str, Any]:
    """librdkafka's configuration of any client; it holds the password: never print it.

    Raises: SettingsError where no broker is known or the CA's file cannot be read.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_servers,
        "security.protocol": settings.kafka_security_protocol,
        # It would print to stderr; what matters arrives as an error or a delivery report.
        "log_level": 0,
    }
    if refusals is not None:
        config["error_cb"] = refusals.hear
    if settings.kafka_uses_sasl:
        assert settings.kafka_sasl_password is not None, "the settings demand it"
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username,
            "sasl.password": settings.kafka_sasl_password.get_secret_value(),
        }
    if certificates := _certificates(settings):
        config["ssl.ca.pem"] = certificates
    return config


def spark_options(settings: Settings) -> dict[str, str]:
    """The same for Spark's Kafka source; executors get all of it from the driver, files included.

    It holds the password: give it as options of the source, which no command line or plan shows.
    Raises: as `client_config`.
    """
    options = {
        "kafka.bootstrap.servers": settings.kafka_servers,
        "kafka.security.protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_uses_sasl:
        assert settings.kafka_sasl_password is not None, "the settings demand it"
        options |= {
            "kafka.sasl.mechanism": settings.kafka_sasl_mechanism,
            "kafka.sasl.jaas.config": (
                f"{_LOGIN_MODULES[settings.kafka_sasl_mechanism]} required"
                f" username={_quoted(settings.kafka_sasl_username or '')}"
                f" password={_quoted(settings.kafka_sasl_password.get_secret_value())};"
            ),
        }
    if certificates := _certificates(settings):
        options |= {
            "kafka.ssl.truststore.type": "PEM",
            "kafka.ssl.truststore.certificates": certificates,
        }
    return options


def _quoted(value: str) -> str:
    """A string as the JAAS configuration's parser reads it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _certificates(settings: Settings) -> str | None:
    """The CA's certificates as PEM text."""
    path = settings.kafka_ssl_ca_location
    if path is None:
        return None
    try:
        text = path.read_text(encoding="ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except OSError as error:
        # An SSLError is one too.
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
