"""The schema's version: the one that the database has, and those that this program knows."""

from pathlib import Path
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.errors import PlatformError
from mastodon_assets.warehouse.tables import SCHEMA

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = sql.Identifier(SCHEMA, "schema_version")


class SchemaVersionError(PlatformError):
    """The schema has another version than this program writes."""


def migrations() -> dict[str, Path]:
    """Return the known migrations, number to file."""
    return {file.name.partition("_")[0]: file for file in MIGRATIONS.glob("[0-9]*.*")}


# Of the running program: an update may put newer files into its folder.
_KNOWN = max(migrations())


def read_schema_version(connection: Connection[Any]) -> str | None:
    """Read the number of the newest migration that was applied; None if there was none."""
    exists = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.schema_version",)
    ).fetchone()
    if exists != (True,):
        return None
    row = connection.execute(sql.SQL("SELECT version_num FROM {}").format(VERSION_TABLE)).fetchone()
    return row[0] if row else None


def check_schema_version(connection: Connection[Any]) -> None:
    """Check that the schema has the version that this program writes.

    Raises:
        SchemaVersionError: A migration was applied since, or is pending.
    """
    found, known = read_schema_version(connection), _KNOWN
    if found is not None and found != known:
        advice = (
            "stop this program and start the version that applied the migration"
            if found > known
            else "run: mastodon-assets migrate"
        )
        raise SchemaVersionError(
            f"the schema is at version {found} and this program writes version {known}; nothing"
            f" was written; {advice}"
        )
