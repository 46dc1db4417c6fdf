"""The decision of a person about a suspicious server: what it concludes may be done.

What belongs here: removing what was held. Why it was held is in `ingest.removal_brake`.
"""

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.ingest.removal_brake import accept_suspicion, read_suspicious
from mastodon_assets.ingest.stored_posts import PostAlias, publish_deletes


def accept_source(settings: Settings, name: str) -> int:
    """Publish the deletes that were held for a server, and let more pass for a day.

    Args:
        settings: Kafka and PostgreSQL.
        name: The server as `status` shows it, with or without a source.

    Returns:
        The number of deletes.

    Raises:
        SettingsError: The server is not suspicious.
        ServiceUnavailableError: Kafka or PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    instance = name.partition("/")[0].lower()
    suspicious = read_suspicious(settings.postgres_url)
    if instance not in suspicious:
        names = ", ".join(suspicious) or "none"
        raise SettingsError(f"{name} is not suspicious; suspicious servers: {names}")
    held = suspicious[instance].status_ids
    publish_deletes(settings, (PostAlias(instance, status_id) for status_id in held))
    accept_suspicion(settings.postgres_url, instance)
    return len(held)
