"""Numbered migrations: one function applies the pending ones, then comments and rights.

What belongs here: how migrations run. Each one is a file in `migrations/`, named by its number:
SQL, or Python if it rewrites rows by rules of this package.
"""

import runpy
from pathlib import Path

import psycopg
from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.locks import MIGRATION_LOCK, WRITE_LOCK
from mastodon_assets.warehouse.roles import act_as_owner, grant_rights
from mastodon_assets.warehouse.schema_version import (
    VERSION_TABLE,
    migrations,
    read_schema_version,
)
from mastodon_assets.warehouse.tables import SCHEMA, TABLES
from mastodon_assets.warehouse.views import VIEWS, apply_view, comment_on

# As Alembic makes it: databases of older versions have one.
_CREATE_VERSION_TABLE = sql.SQL(
    "CREATE TABLE IF NOT EXISTS {}"
    " (version_num varchar(32) CONSTRAINT schema_version_pkc PRIMARY KEY)"
).format(VERSION_TABLE)

_LOCK_TIMEOUT = "60s"


class MigrationError(PlatformError):
    """The schema is newer than this program, or a migration failed; nothing was changed."""


def migrate(postgres_url: SecretStr) -> str:
    """Apply the pending migrations as the schema's owner.

    All of it is one transaction under an advisory lock and the write lock. Of two callers one
    waits, and a failure leaves the schema as it was. If nothing is pending, only the version is
    read, which any role with rights on the schema may do.

    Returns:
        The version that the schema then has.

    Raises:
        ServiceUnavailableError: The database does not answer.
        MigrationError: The schema is newer than this program, or cannot be changed.
    """
    with transaction(postgres_url) as connection:
        found, versions = schema_versions(connection)
    if found == versions[0]:
        return found
    if found is not None and found not in versions:
        raise MigrationError(
            f"the database has schema {found}, which this version does not know; upgrade"
            " mastodon-assets"
        )
    try:
        with connect(postgres_url) as connection:
            return _apply_pending(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"the schema is at version {found or 'none'}, this program needs {versions[0]}, and the"
            f" role in DATABASE_URL may not change it ({str(error).splitlines()[0]}); with its"
            " owner's DATABASE_URL run: mastodon-assets migrate"
        ) from error
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise MigrationError(
            f"the schema cannot be brought to version {versions[0]} ({reason}); nothing was changed"
        ) from error


def schema_versions(connection: Connection) -> tuple[str | None, list[str]]:
    """Return the schema's version, None if it has none, and the known ones, newest first."""
    return read_schema_version(connection), sorted(migrations(), reverse=True)


def _apply_pending(connection: Connection) -> str:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    # A table that somebody reads for long is not waited for: readers would queue behind.
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
    # Writers end their transaction first, and see the new version in the next one.
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITE_LOCK,))
    # CREATE SCHEMA IF NOT EXISTS is refused to a role that may not create one, even if it exists.
    if connection.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchone() == (None,):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    act_as_owner(connection)
    found = read_schema_version(connection)
    if found is None:
        connection.execute(_CREATE_VERSION_TABLE)
    versions = sorted(migrations().items())
    for number, file in versions:
        if found is None or number > found:
            _apply(connection, file)
    newest = versions[-1][0]
    connection.execute(sql.SQL("DELETE FROM {}").format(VERSION_TABLE))
    connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(VERSION_TABLE), (newest,))
    for view in VIEWS:
        apply_view(connection, view)
    _comment(connection)
    grant_rights(connection)
    return newest


def _apply(connection: Connection, file: Path) -> None:
    """Execute a migration: SQL, or a module whose `upgrade` gets the connection."""
    if file.suffix == ".sql":
        connection.execute(file.read_bytes())
    else:
        runpy.run_path(str(file))["upgrade"](connection)


def _comment(connection: Connection) -> None:
    for table in TABLES.values():
        comment_on(connection, table)
    connection.execute(
        sql.SQL("COMMENT ON TABLE {} IS 'The newest migration that was applied.'").format(
            VERSION_TABLE
        )
    )
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {}.version_num IS 'number of that migration'").format(
            VERSION_TABLE
        )
    )
