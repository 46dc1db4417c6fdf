"""Numbered migrations, applied by one function under one lock, with comments from the registry.

What belongs here: how migrations run. What they do stands in `migrations/versions/`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.locks import MIGRATION_LOCK
from mastodon_assets.warehouse.roles import act_as_owner, grant_rights
from mastodon_assets.warehouse.tables import SCHEMA, TABLES
from mastodon_assets.warehouse.views import VIEWS, apply_view, comment_on

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"


class MigrationError(PlatformError):
    """The schema is newer than this program, or a migration failed; nothing was changed."""


def migrate(postgres_url: SecretStr) -> str:
    """Apply what is pending, as the schema's owner, and return the version the schema then has.

    One transaction under an advisory lock: of two callers one waits, and a failure leaves the
    schema as it was. Where nothing is pending, reading the version is all it does, and any role
    with rights on the schema may. Raises: ServiceUnavailableError where the database does not
    answer, MigrationError.
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
    # A quarter of a second that a command only takes where something is pending.
    from sqlalchemy.exc import DBAPIError

    try:
        return _apply_pending(postgres_url)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"the schema is at version {found or 'none'}, this program needs {versions[0]}, and the"
            f" role in DATABASE_URL may not change it ({str(error).splitlines()[0]}); with its"
            " owner's DATABASE_URL run: mastodon-assets migrate"
        ) from error
    except (psycopg.Error, DBAPIError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MigrationError(
            f"the schema cannot be brought to version {versions[0]} ({reason}); nothing was changed"
        ) from error


def schema_versions(connection: Connection) -> tuple[str | None, list[str]]:
    """The version that the schema has, None for none, and those known here, newest first."""
    files = (_MIGRATIONS / "versions").glob("*.py")
    return _version(connection), sorted((_number(file) for file in files), reverse=True)


def run_sql(statements: str) -> None:
    """Run a version's SQL file on alembic's connection, as it stands (no parameters)."""
    from alembic import op

    driver_connection = op.get_bind().connection.driver_connection
    assert isinstance(driver_connection, Connection)
    driver_connection.execute(statements.encode())


def _apply_pending(postgres_url: SecretStr) -> str:
    from alembic import command
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    # `creator`: psycopg alone reads the URL, so that no second parser understands it otherwise.
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect(postgres_url), poolclass=NullPool
    )
    with engine.begin() as bound:
        bound.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        driver_connection = bound.connection.driver_connection
        assert isinstance(driver_connection, Connection)
        # Asked for by one who may not create any, even one that exists is refused.
        exists = driver_connection.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchone()
        if exists == (None,):
            driver_connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
        act_as_owner(driver_connection)
        config = _config()
        config.attributes["connection"] = bound
        command.upgrade(config, "head")
        for view in VIEWS:
            apply_view(driver_connection, view)
        _comment(driver_connection)
        grant_rights(driver_connection)
        return str(_version(driver_connection))


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    # An explicit separator, or alembic warns about its old default.
    config.set_main_option("path_separator", "os")
    return config


def _number(file: Path) -> str:
    return file.name.partition("_")[0]


def _version(connection: Connection) -> str | None:
    exists = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.schema_version",)
    ).fetchone()
    if exists != (True,):
        return None
    row = connection.execute(
        sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(SCHEMA, "schema_version"))
    ).fetchone()
    return row[0] if row else None


def _comment(connection: Connection) -> None:
    for table in TABLES.values():
        comment_on(connection, table)
    version_table = sql.Identifier(SCHEMA, "schema_version")
    connection.execute(
        sql.SQL("COMMENT ON TABLE {} IS 'Which numbered migration the schema has.'").format(
            version_table
        )
    )
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {}.version_num IS 'number of the newest one'").format(
            version_table
        )
    )
