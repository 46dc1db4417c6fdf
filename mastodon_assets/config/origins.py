"""Where each setting's value comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import SettingsError

Origin = Literal["environment", ".env", "connection.json", "default"]

# What `mastodon-assets up` writes to `connection.json`.
_FALLBACKS: Mapping[str, Callable[[Settings], Any]] = {
    "kafka_bootstrap_servers": lambda settings: settings.kafka_servers,
    "database_url": lambda settings: settings.postgres_url,
    "withdrawn_key": lambda settings: settings.suppression_key,
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
    """Return every setting in the order of the class, as the environment and `.env` are now."""
    environment = EnvSettingsSource(Settings)()
    dotenv = DotEnvSettingsSource(Settings)()
    origins = []
    for name in Settings.model_fields:
        value, origin = getattr(settings, name), _origin(name, environment, dotenv)
        if value is None and name in _FALLBACKS:
            value = _fallback(settings, name)
            origin = origin if value is None else "connection.json"
        origins.append(SettingOrigin(name.upper(), value, origin))
    return origins


def _origin(name: str, environment: Mapping[str, Any], dotenv: Mapping[str, Any]) -> Origin:
    if name in environment:
        return "environment"
    return ".env" if name in dotenv else "default"


def _fallback(settings: Settings, name: str) -> Any:
    try:
        return _FALLBACKS[name](settings)
    except SettingsError:
        return None
