"""Where each setting's value comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from mastodon_assets.config.settings import SECRETS, SecretFiles, Settings
from mastodon_assets.errors import SettingsError

Origin = Literal[
    "environment", ".env", "/run/secrets", "connection.json", "withdrawn.key", "default"
]


def _of_broker(field: str, settings: Settings) -> Any:
    return getattr(settings.kafka_access, field)


# What `mastodon-assets up` writes to the state folder, with the file. It counts if the setting that
# is named first is not set.
_GENERATED: Mapping[str, tuple[str, Origin, Callable[[Settings], Any]]] = {
    **{
        f"kafka_{name}": (
            "kafka_bootstrap_servers",
            "connection.json",
            partial(_of_broker, name),
        )
        for name in ("security_protocol", "sasl_mechanism", "sasl_username", "sasl_password")
    },
    "kafka_bootstrap_servers": (
        "kafka_bootstrap_servers",
        "connection.json",
        lambda settings: settings.kafka_servers,
    ),
    "database_url": ("database_url", "connection.json", lambda settings: settings.postgres_url),
    "withdrawn_key": ("withdrawn_key", "withdrawn.key", lambda settings: settings.suppression_key),
}


@dataclass(frozen=True)
class SettingOrigin:
    """One setting: the variable's name, the value in use (None if there is none), its origin."""

    name: str
    value: Any
    origin: Origin

    @property
    def is_secret(self) -> bool:
        """Whether the value must not be shown."""
        return isinstance(self.value, SecretStr)


def setting_origins(settings: Settings) -> list[SettingOrigin]:
    """Return every setting in the order of the class, as environment and files are now."""
    sources: dict[Origin, Mapping[str, Any]] = {
        "environment": EnvSettingsSource(Settings)(),
        ".env": DotEnvSettingsSource(Settings)(),
        "/run/secrets": SecretFiles(Settings, SECRETS)() if SECRETS.is_dir() else {},
    }
    origins = []
    for name in Settings.model_fields:
        value, origin = getattr(settings, name), _origin(name, sources)
        if name in _GENERATED and getattr(settings, _GENERATED[name][0]) is None:
            _, file, read = _GENERATED[name]
            generated = _read(settings, read)
            value, origin = (value, origin) if generated is None else (generated, file)
        origins.append(SettingOrigin(name.upper(), value, origin))
    return origins


def _origin(name: str, sources: Mapping[Origin, Mapping[str, Any]]) -> Origin:
    return next((origin for origin, values in sources.items() if name in values), "default")


def _read(settings: Settings, read: Callable[[Settings], Any]) -> Any:
    try:
        return read(settings)
    except SettingsError:
        return None
