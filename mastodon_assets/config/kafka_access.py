"""How a client reaches the Kafka broker: its address, encryption and login."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr


@dataclass(frozen=True)
class KafkaAccess:
    """What every client of a broker needs; the fields are those of the KAFKA_ settings.

    Attributes:
        servers: `host:port[,host:port]`.
        security_protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        sasl_mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
        sasl_username: The login, None without SASL.
        sasl_password: Its password, None without SASL.
        ssl_ca_location: File of the CA's certificates; None for those of the system.
    """

    servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: Path | None = None

    @property
    def uses_sasl(self) -> bool:
        """Whether clients log in."""
        return self.security_protocol.startswith("SASL")
