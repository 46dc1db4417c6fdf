"""The settings: environment variables, typed and validated once, with secrets masked.

What belongs here: what differs from machine to machine. What does not: constants of the data (they
are in the modules that use them) and anything of Dagster.
"""

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from mastodon_assets.config.kafka_access import KafkaAccess
from mastodon_assets.config.sources import parse_sources
from mastodon_assets.config.state_folder import SUPPRESSION_KEY_FILE
from mastodon_assets.errors import SettingsError
from mastodon_assets.files import read_text

# Where containers and Kubernetes put secrets: one file per setting, with the setting's name.
SECRETS = Path("/run/secrets")
_SERVER = re.compile(r"\A([^\s,:/\[\]]+|\[[0-9A-Fa-f:]+\]):\d+\Z")
_URI = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]+:/")
_TOPIC_PATTERN = r"^[A-Za-z0-9._-]{1,249}$"
_MEMORY_PATTERN = r"^[1-9][0-9]*[kmgtKMGT]$"
_CONTACT_PATTERN = r"^[A-Za-z0-9@:/._~+-]{3,200}$"
_LANGUAGES_PATTERN = r"^( *[A-Za-z]{2,8} *(, *[A-Za-z]{2,8} *)*)?$"
_HOST = r"(\*|(\*\.)?[A-Za-z0-9.-]+)"
_HOSTS_PATTERN = rf"^{_HOST}(,{_HOST})*$"
_PAGE_PATTERN = r"^https?://[^\s\"'<>@]+$"
_OWNER = r" *(team:[A-Za-z0-9_-]+|[^\s,@:]+@[^\s,@:]+\.[^\s,@:]+) *"
_OWNERS_PATTERN = rf"^({_OWNER}(,{_OWNER})*)?$"
_TAGS_PATTERN = r"^( *#?[^\s,#]+ *(, *#?[^\s,#]+ *)*)?$"

# A hundred years. Much longer spans reach out of the calendar.
MOST_DAYS = 36_500

# Pydantic's messages for programmers, reworded for whoever sets the variable.
_ALLOWED = {
    "literal_error": "{expected}",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "greater_than_equal": "at least {ge:.10g}",
    "less_than_equal": "at most {le:.10g}",
    "too_short": "at least {min_length} characters",
}
_ALLOWED_PATTERNS = {
    _CONTACT_PATTERN: "an address or URL such as ops@one.example, at most 200 characters",
    _TOPIC_PATTERN: "letters, digits, `.`, `_` and `-`, at most 249",
    _MEMORY_PATTERN: "a number with k, m, g or t, such as 2g",
    _HOSTS_PATTERN: "a comma-separated list of host names, such as localhost,dagster.example",
    _LANGUAGES_PATTERN: "a comma-separated list of languages, such as de,en",
    _PAGE_PATTERN: "a page's URL such as https://dashboard.example, without user and password",
    _OWNERS_PATTERN: "a comma-separated list such as team:data,ada@one.example",
    _TAGS_PATTERN: "a comma-separated list of tags, such as news,#tea",
}


class SecretFiles(SecretsSettingsSource):
    """The files in `/run/secrets`. An empty one is not set, as an empty variable is not."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return value (None if there is none), name, and whether the value is JSON."""
        value, name, is_json = super().get_field_value(field, field_name)
        return value or None, name, is_json


class Settings(BaseSettings):
    """The settings of the environment, `.env` and secrets; each field is a variable or a file.

    `kafka_bootstrap_servers` (with its login) and `database_url` fall back to `connection.json`,
    and `withdrawn_key` to `withdrawn.key`. `mastodon-assets up` writes both files to the state
    folder. Read these settings through `kafka_access`, `postgres_url` and `suppression_key`.
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    mastodon_assets_home: Path = Path(".mastodon_assets")
    mastodon_api_base_url: str | None = None
    mastodon_sources: str = "public"
    mastodon_access_token: SecretStr | None = None
    mastodon_access_tokens_file: Path | None = None
    mastodon_contact: str | None = Field(default=None, pattern=_CONTACT_PATTERN)
    audit_minutes: int = Field(default=10, ge=0, le=1440)
    removal_brake_share: float = Field(default=0.33, ge=0, le=1)
    removal_brake_min: int = Field(default=50, ge=1)
    ingest_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    mastodon_consent: Literal["respect", "opt-in"] = "respect"
    mastodon_handle_key: SecretStr | None = Field(default=None, min_length=16)
    withdrawn_key: SecretStr | None = Field(default=None, min_length=16)

    filter_languages: str = Field(default="", pattern=_LANGUAGES_PATTERN)
    filter_words: str = ""
    filter_tags: str = Field(default="", pattern=_TAGS_PATTERN)
    filter_bots: Literal["keep", "drop"] = "keep"
    filter_replies: Literal["keep", "drop"] = "keep"

    simulator_token: SecretStr | None = None

    kafka_bootstrap_servers: str | None = None
    kafka_topic: str = Field(default="mastodon_stream", pattern=_TOPIC_PATTERN)
    kafka_errors_topic: str = Field(default="mastodon_errors", pattern=_TOPIC_PATTERN)
    kafka_accept_data_loss: bool = False
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_ssl_ca_location: Path | None = None
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    database_url: SecretStr | None = None
    masto_owner_password: SecretStr | None = None
    masto_writer_password: SecretStr | None = None
    masto_moderator_password: SecretStr | None = None
    masto_reader_password: SecretStr | None = None

    spark_master: str = "local[*]"
    spark_driver_memory: str | None = Field(default=None, pattern=_MEMORY_PATTERN)
    spark_ui_port: int | None = Field(default=None, ge=1, le=65535)
    max_offsets_per_batch: int = Field(default=100_000, ge=1)
    stream_stall_seconds: int = Field(default=300, ge=1)
    stream_score_max_rows: int = Field(default=5_000, ge=0)
    stream_metrics_port: int | None = Field(default=None, ge=1, le=65535)

    sentiment_corpus: Path | str | None = None
    sentiment_calibration: Path | str | None = None
    sentiment_encoder: Literal["ngrams", "multilingual", "e5"] = "ngrams"
    sentiment_embedding_dir: Path | str | None = None
    sentiment_served_from: float = Field(default=0.45, ge=0, le=1)
    model_dir: Path | str = Path("data/models/sentiment_pipeline_model")
    neutral_low: float = Field(default=0.45, ge=0, le=1)
    neutral_high: float = Field(default=0.55, ge=0, le=1)

    reports_dir: Path = Path("reports")
    exports_dir: Path = Path("data")
    activity_min_toots: int = Field(default=5, ge=1)
    asset_owners: str = Field(default="", pattern=_OWNERS_PATTERN)
    refresh_min_seconds: int = Field(default=60, ge=0, le=86_400 * MOST_DAYS)
    kafka_keep_days: int = Field(default=7, ge=1, le=MOST_DAYS)
    kafka_errors_keep_days: int = Field(default=90, ge=1, le=MOST_DAYS)
    posts_keep_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    windows_keep_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    rejected_keep_days: int = Field(default=90, ge=1, le=MOST_DAYS)
    alerts_keep_days: int = Field(default=90, ge=1, le=MOST_DAYS)
    unknown_deletes_keep_days: int = Field(default=30, ge=1, le=MOST_DAYS)
    dagster_keep_days: int = Field(default=30, ge=1, le=MOST_DAYS)
    dagster_keep_refreshes: int = Field(default=20, ge=1)

    alert_webhook_url: SecretStr | None = None
    alert_urls: SecretStr | None = None
    alert_file: Path | None = None
    alert_clear_seconds: int = Field(default=300, ge=0, le=86_400 * MOST_DAYS)
    alert_reminder_hours: int = Field(default=24, ge=1, le=24 * MOST_DAYS)
    alert_lag_messages: int = Field(default=100_000, ge=1)
    alert_stall_minutes: int = Field(default=10, ge=1, le=1_440 * MOST_DAYS)
    alert_gap_minutes: int = Field(default=30, ge=1, le=1_440 * MOST_DAYS)
    alert_reject_share: float = Field(default=0.05, ge=0, le=1)
    alert_disk_gib: float = Field(default=5, ge=0)

    backup_dir: Path | None = None
    backup_every_hours: int | None = Field(default=None, ge=1, le=8_784)
    backup_keep_days: int = Field(default=14, ge=1, le=MOST_DAYS)
    metrics_host: str = "127.0.0.1"
    dashboard_port: int = Field(default=3300, ge=1, le=65535)
    dashboard_host: str = "127.0.0.1"
    dashboard_password: SecretStr | None = Field(default=None, min_length=12)
    dashboard_url: str | None = Field(default=None, pattern=_PAGE_PATTERN)
    dagster_url: str = Field(default="http://127.0.0.1:3000", pattern=_PAGE_PATTERN)
    ui_hosts: str = Field(default="127.0.0.1,localhost", pattern=_HOSTS_PATTERN)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    stop_seconds: float = Field(default=2, ge=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in their order; the first one wins."""
        folder = getattr(file_secret_settings, "secrets_dir", None)
        return init_settings, env_settings, dotenv_settings, SecretFiles(settings_cls, folder)

    @field_validator(
        "mastodon_assets_home",
        "mastodon_access_tokens_file",
        "kafka_ssl_ca_location",
        "sentiment_corpus",
        "sentiment_calibration",
        "sentiment_embedding_dir",
        "model_dir",
        "reports_dir",
        "exports_dir",
        "alert_file",
        "backup_dir",
    )
    @classmethod
    def _with_home_folder(cls, value: Path | str | None) -> Path | str | None:
        # A shell expands `~` in the environment, but not in `.env`.
        if not value or is_uri(value):
            return value
        try:
            return Path(value).expanduser()
        except RuntimeError:  # no such user
            return Path(value)

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("mastodon_api_base_url")
    @classmethod
    def _is_http_urls(cls, value: str | None) -> str | None:
        if value is None:
            return None
        urls = [url.strip() for url in value.split(",")]
        if not all(map(_names_a_server, urls)):
            raise ValueError(
                "allowed: a server's URL such as https://mastodon.example, or a comma-separated"
                " list"
            )
        return ",".join(url.rstrip("/") for url in urls)

    @field_validator("mastodon_sources")
    @classmethod
    def _is_sources(cls, value: str) -> str:
        parse_sources(value)
        return value

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _is_servers(cls, value: str | None) -> str | None:
        if value is not None and not all(map(_SERVER.match, value.split(","))):
            raise ValueError("allowed: host:port, or a comma-separated list")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgres_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not _names_a_database(value.get_secret_value()):
            raise ValueError(
                "allowed: postgresql://user:password@host:port/database; in the password, write"
                " : / @ % as %3A %2F %40 %25"
            )
        return value

    @field_validator("alert_webhook_url")
    @classmethod
    def _is_http_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.match(r"https?://[^\s/]", value.get_secret_value()):
            raise ValueError("allowed: an address such as https://hooks.example/…")
        return value

    @field_validator("alert_urls")
    @classmethod
    def _is_apprise_urls(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not all("://" in each for each in value.get_secret_value().split()):
            raise ValueError("allowed: addresses such as ntfys://topic, with spaces between them")
        return value

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        if self.neutral_low > self.neutral_high:
            raise ValueError(
                f"NEUTRAL_LOW={self.neutral_low}: allowed: at most NEUTRAL_HIGH={self.neutral_high}"
            )
        if self.kafka_topic == self.kafka_errors_topic:
            raise ValueError(
                f"KAFKA_ERRORS_TOPIC={self.kafka_errors_topic!r}: allowed: not KAFKA_TOPIC's"
            )
        if self.sentiment_encoder != "ngrams" and self.sentiment_embedding_dir is not None:
            raise ValueError(
                f"SENTIMENT_ENCODER={self.sentiment_encoder!r}: allowed: only without"
                " SENTIMENT_EMBEDDING_DIR, which names another encoder"
            )
        return self

    @model_validator(mode="after")
    def _uses_login_and_ca(self) -> "Settings":
        # Whoever sets a login or a CA expects it to be used.
        shown = f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol!r}: allowed:"
        has_login = self.kafka_sasl_username is not None and self.kafka_sasl_password is not None
        uses_sasl = self.kafka_security_protocol.startswith("SASL")
        if uses_sasl and not has_login:
            raise ValueError(
                f"{shown} this one only together with KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
            )
        if not uses_sasl and (self.kafka_sasl_username or self.kafka_sasl_password):
            raise ValueError(f"{shown} SASL_SSL or SASL_PLAINTEXT if KAFKA_SASL_… are set")
        if self.kafka_ssl_ca_location and not self.kafka_security_protocol.endswith("SSL"):
            raise ValueError(f"{shown} SSL or SASL_SSL if KAFKA_SSL_CA_LOCATION is set")
        return self

    @cached_property
    def _connection(self) -> dict[str, str]:
        path = self.mastodon_assets_home / "connection.json"
        try:
            connection = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SettingsError(
                f"cannot read {path} ({error.strerror}); set MASTODON_ASSETS_HOME to a folder of"
                " your own"
            ) from error
        except ValueError:
            connection = None
        if isinstance(connection, dict):
            found = {key: str(value) for key, value in connection.items()}
            if not found.get("postgres_url") or _names_a_database(found["postgres_url"]):
                return found
        raise SettingsError(f"{path} is damaged; run: mastodon-assets up")

    @property
    def kafka_access(self) -> KafkaAccess:
        """Return how to reach the broker; at the embedded one only its own login is valid.

        Raises:
            SettingsError: No broker is known.
        """
        if self.kafka_bootstrap_servers is not None:
            return KafkaAccess(
                self.kafka_bootstrap_servers,
                self.kafka_security_protocol,
                self.kafka_sasl_mechanism,
                self.kafka_sasl_username,
                self.kafka_sasl_password,
                self.kafka_ssl_ca_location,
            )
        known = self._connection
        if not known.get("kafka_bootstrap_servers"):
            raise SettingsError(
                "no Kafka broker is known; run: mastodon-assets up, in the folder of your data (or"
                " set KAFKA_BOOTSTRAP_SERVERS)"
            )
        # The broker of an earlier version asks for no login.
        password = known.get("kafka_sasl_password")
        return KafkaAccess(
            known["kafka_bootstrap_servers"],
            known.get("kafka_security_protocol", "PLAINTEXT"),
            known.get("kafka_sasl_mechanism", "PLAIN"),
            known.get("kafka_sasl_username"),
            SecretStr(password) if password else None,
        )

    @property
    def kafka_servers(self) -> str:
        """Return `host:port[,host:port]` of the broker.

        Raises:
            SettingsError: No broker is known.
        """
        return self.kafka_access.servers

    @property
    def postgres_url(self) -> SecretStr:
        """Return `postgresql://…` with the password.

        Raises:
            SettingsError: No database is known.
        """
        if self.database_url:
            return self.database_url
        url = self._connection.get("postgres_url")
        if not url:
            raise SettingsError(
                "no PostgreSQL is known; run: mastodon-assets up, in the folder of your data (or"
                " set DATABASE_URL)"
            )
        return SecretStr(url)

    @property
    def dashboard_page(self) -> str:
        """Return the URL under which browsers find the dashboard."""
        return self.dashboard_url or f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def suppression_key(self) -> SecretStr | None:
        """Return the suppression list's key: WITHDRAWN_KEY, or the one that `up` generated."""
        if self.withdrawn_key:
            return self.withdrawn_key
        # Earlier versions wrote it to connection.json; the next `up` moves it.
        generated = self._generated_key or self._connection.get("withdrawn_key")
        return SecretStr(generated) if generated else None

    @cached_property
    def _generated_key(self) -> str | None:
        path = self.mastodon_assets_home / SUPPRESSION_KEY_FILE
        try:
            return read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise SettingsError(
                f"cannot read {path} ({reason}), the key of the suppression list; restore it from"
                " a backup, or make it readable"
            ) from error


def is_uri(name: Path | str) -> bool:
    """Return whether it names a place in one of Hadoop's file systems, not a local path."""
    return isinstance(name, str) and _URI.match(name) is not None


def local_path(name: Path | str) -> Path | None:
    """Return the path on this machine that a path or `file:///…` names; None for other places.

    As in Hadoop's file systems, a percent sign in a URI is one.
    """
    if not is_uri(name):
        return Path(name)
    scheme, _, rest = str(name).partition(":")
    if scheme != "file":
        return None
    return Path("/", rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest)


def load_settings(**overrides: Any) -> Settings:
    """Read environment, `.env` and the files in `/run/secrets`, in this order; `overrides` win.

    Raises: SettingsError with one line that names variable, value and what is allowed.
    """
    if SECRETS.is_dir():
        overrides = {"_secrets_dir": SECRETS, **overrides}
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # The cause is left out: it holds the values, secrets among them.
        raise SettingsError("; ".join(_one_line(detail) for detail in error.errors())) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f".env is not UTF-8 ({error.reason}), or a file in {SECRETS}; save it as UTF-8"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"cannot read {error.filename} ({error.strerror}); make it readable for this user"
        ) from error


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that give another process these settings, with absolute paths."""
    values: dict[str, str] = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        values[name.upper()] = str(value.absolute() if isinstance(value, Path) else value)
    return values


def _names_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_bare = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in url)
        return (
            parts.scheme in ("https", "http")
            and bool(parts.hostname)
            and is_bare
            and (parts.port != 0)
        )
    except ValueError:
        # Invalid brackets or port.
        return False


def _names_a_database(url: str) -> bool:
    """Return whether the URL has every part that psycopg, SQLAlchemy and JDBC need.

    A password with a bare `/` or `@` would put its rest into host, port or database, and from
    there into error messages.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    if not url.startswith(("postgresql://", "postgres://")):
        return False
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return False
    named = [str(parts.get(name) or "") for name in ("user", "host", "dbname")]
    return (
        all(named)
        and not any("@" in name for name in named[1:])
        and "," not in named[1]
        and str(parts.get("port", "5432")).isdecimal()
    )


def _one_line(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    context = detail.get("ctx", {})
    allowed = _ALLOWED_PATTERNS.get(context.get("pattern")) or _ALLOWED.get(detail["type"])
    if allowed:
        message = f"allowed: {allowed.format(**context)}"
    name = str(detail["loc"][0])
    field = Settings.model_fields.get(name)
    is_secret = field is not None and "SecretStr" in str(field.annotation)
    # A URL may hold a password before its @.
    shown = "***" if is_secret or "@" in str(detail["input"]) else repr(detail["input"])
    return f"{name.upper()}={shown}: {message}"
