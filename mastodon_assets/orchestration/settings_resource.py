"""The settings as a resource: read when a run starts, never kept in run configuration."""

import dagster as dg

from mastodon_assets.settings import Settings, load_settings


class SettingsResource(dg.ConfigurableResource):
    """Gives assets the settings of the process they run in; has no configuration of its own."""

    def load(self) -> Settings:
        """Environment and `.env`, validated. Raises: SettingsError."""
        return load_settings()
