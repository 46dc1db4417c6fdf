"""The start of the embedded servers, with roles, tables and the kept suppression list.

What belongs here: the order. What each step does is in `embedded`, `warehouse` and `kept_list`.
"""

from dataclasses import dataclass

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.embedded import stack
from mastodon_assets.jvm.maven import Report
from mastodon_assets.operations.kept_list import restore
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.roles import create_roles


@dataclass(frozen=True)
class StartedServers:
    """The running servers.

    Attributes:
        connection: Their addresses and logins.
        schema_version: The version of the database schema.
        restored: Entries of a kept suppression list that were added.
    """

    connection: stack.Connection
    schema_version: str
    restored: int


def start_servers(settings: Settings, report: Report, *, upgrade: bool = False) -> StartedServers:
    """Start what does not run, and bring topics, roles and tables up to date. Safe to repeat.

    Args:
        settings: They name state folder and topics.
        report: Gets a line per step that takes long.
        upgrade: Whether to upgrade data that older servers made.

    Raises:
        PlatformError: A server does not start, the schema cannot be changed, or a file of the state
            folder is damaged.
    """
    connection = stack.up(
        settings.mastodon_assets_home,
        topics=[settings.kafka_topic, settings.kafka_errors_topic],
        own_key=settings.withdrawn_key,
        upgrade=upgrade,
        report=report,
    )
    postgres_url = SecretStr(connection.postgres_url)
    create_roles(postgres_url, {})
    version = migrate(postgres_url)
    return StartedServers(connection, version, restore(settings.mastodon_assets_home))
