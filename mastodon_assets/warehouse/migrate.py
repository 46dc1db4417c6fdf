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
from mastodon_assets.warehouse.locks import MIGRATION_LOCK
from mastodon_assets.warehouse.roles import act_as_owner, grant_rights
from mastodon_assets.warehouse.tables import SCHEMA, TABLES
from mastodon_assets.warehouse.views import VIEWS, apply_view, comment_on

_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = sql.Identifier(SCHEMA, "schema_version")
# As Alembic makes it: databases of older versions have one.
_CREATE_VERSION_TABLE = sql.SQL(
    "CREATE TABLE IF NOT EXISTS {}"
    " (version_num varchar(32) CONSTRAINT schema_version_pkc PRIMARY KEY)"
).format(_VERSION_TABLE)


class MigrationError(PlatformError):
    """The schema is newer than this program, or a migration failed; nothing was changed."""


def migrate(postgres_url: SecretStr) -> str:
    """Apply the pending migrations as the schema's owner.

    All of it is one transaction under an advisory lock. Of two callers one waits, and a failure
    leaves the schema as it was. If nothing is pending, only the version is read, which any role
    with rights on the schema may do.

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
    return _version(connection), sorted(_migrations(), reverse=True)


def _apply_pending(connection: Connection) -> str:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    # CREATE SCHEMA IF NOT EXISTS is refused to a role that may not create one, even if it exists.
    if connection.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchone() == (None,):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    act_as_owner(connection)
    found = _version(connection)
    if found is None:
        connection.execute(_CREATE_VERSION_TABLE)
    versions = sorted(_migrations().items())
    for number, file in versions:
        if found is None or number > found:
            _apply(connection, file)
    newest = versions[-1][0]
    connection.execute(sql.SQL("DELETE FROM {}").format(_VERSION_TABLE))
    connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(_VERSION_TABLE), (newest,))
    for view in VIEWS:
        apply_view(connection, view)
    _comment(connection)
    grant_rights(connection)
    return newest


def _migrations() -> dict[str, Path]:
    return {file.name.partition("_")[0]: file for file in _MIGRATIONS.glob("[0-9]*.*")}


def _apply(connection: Connection, file: Path) -> None:
    """Execute a migration: SQL, or a module whose `upgrade` gets the connection."""
    if file.suffix == ".sql":
        connection.execute(file.read_bytes())
    else:
        runpy.run_path(str(file))["upgrade"](connection)


def _version(connection: Connection) -> str | None:
    exists = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.schema_version",)
    ).fetchone()
    if exists != (True,):
        return None
    row = connection.execute(
        sql.SQL("SELECT version_num FROM {}").format(_VERSION_TABLE)
    ).fetchone()
    return row[0] if row else None


def _comment(connection: Connection) -> None:
    for table in TABLES.values():
        comment_on(connection, table)
    connection.execute(
        sql.SQL("COMMENT ON TABLE {} IS 'The newest migration that was applied.'").format(
            _VERSION_TABLE
        )
    )
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {}.version_num IS 'number of that migration'").format(
            _VERSION_TABLE
        )
    )
