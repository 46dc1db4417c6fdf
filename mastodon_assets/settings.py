"""The one place with names of environment variables: typed, validated once, secrets as secrets.

What belongs here: a setting that changes from machine to machine. What does not: constants of the
data (they stand with the code that means them) and anything Dagster.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mastodon_assets.errors import SettingsError


class Settings(BaseSettings):
    """What the environment and `.env` say; each field is the variable of the same name.

    `kafka_bootstrap_servers` and `database_url` fall back to the `connection.json` that
    `mastodon-assets up` leaves in the state folder, so they are read through `kafka_servers` and
    `postgres_url`, which raise `SettingsError` where neither says anything.
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    mastodon_assets_home: Path = Path(".mastodon_assets")
    mastodon_api_base_url: str | None = None
    mastodon_access_token: SecretStr | None = None
    mastodon_consent: Literal["respect", "opt-in"] = "respect"

    kafka_bootstrap_servers: str | None = None
    kafka_topic: str = "mastodon_stream"
    kafka_errors_topic: str = "mastodon_errors"
    kafka_accept_data_loss: bool = False
    database_url: SecretStr | None = None

    spark_master: str = "local[*]"
    spark_driver_memory: str = "2g"
    max_offsets_per_batch: int = Field(default=100_000, ge=1)

    sentiment_corpus: Path | None = None
    model_dir: Path = Path("data/models/sentiment_pipeline_model")
    neutral_low: float = Field(default=0.45, ge=0, le=1)
    neutral_high: float = Field(default=0.55, ge=0, le=1)

    reports_dir: Path = Path("reports")
    exports_dir: Path = Path("data")
    activity_min_toots: int = Field(default=5, ge=1)
    refresh_min_seconds: int = Field(default=60, ge=0)

    @field_validator("mastodon_api_base_url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("allowed: a URL that begins with https:// (or http://)")
        return value.rstrip("/") if value else value

    @field_validator("database_url")
    @classmethod
    def _is_postgres_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("allowed: a URL that begins with postgresql://")
        return value

    @model_validator(mode="after")
    def _band_is_ordered(self) -> "Settings":
        if self.neutral_low > self.neutral_high:
            raise ValueError("NEUTRAL_LOW: allowed is at most NEUTRAL_HIGH")
        return self

    @cached_property
    def _connection(self) -> dict[str, str]:
        path = self.mastodon_assets_home / "connection.json"
        try:
            connection = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise SettingsError(f"{path} is not JSON ({error}); run: mastodon-assets up") from error
        return {key: str(value) for key, value in connection.items()}

    @property
    def kafka_servers(self) -> str:
        """`host:port[,host:port]` of the broker. Raises: SettingsError where none is known."""
        servers = self.kafka_bootstrap_servers or self._connection.get("kafka_bootstrap_servers")
        if not servers:
            raise SettingsError(
                "no Kafka broker is known; run: mastodon-assets up (or set KAFKA_BOOTSTRAP_SERVERS)"
            )
        return servers

    @property
    def postgres_url(self) -> SecretStr:
        """`postgresql://…` with the password. Raises: SettingsError where none is known."""
        if self.database_url:
            return self.database_url
        url = self._connection.get("postgres_url")
        if not url:
            raise SettingsError(
                "no PostgreSQL is known; run: mastodon-assets up (or set DATABASE_URL)"
            )
        return SecretStr(url)


def load_settings(**overrides: Any) -> Settings:
    """Read environment and `.env`; `overrides` win.

    Raises: SettingsError with one line that names variable, value and what is allowed.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(detail) for detail in error.errors())) from error


def as_environment(settings: Settings) -> dict[str, str]:
    """Variables with which another process has these settings, wherever it runs: paths absolute."""
    values: dict[str, str] = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        values[name.upper()] = str(value.absolute() if isinstance(value, Path) else value)
    return values


def _one_line(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    name = str(detail["loc"][0])
    field = Settings.model_fields.get(name)
    is_secret = field is not None and "SecretStr" in str(field.annotation)
    shown = "***" if is_secret else repr(detail["input"])
    return f"{name.upper()}={shown}: {message}"
