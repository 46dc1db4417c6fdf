"""Who may do what with the schema: the roles `masto_owner`, `masto_writer`, `masto_reader`.

What belongs here: making the roles, once a server, and the rights each has on the tables, which
follow from the registry and are given again after each migration. Roles are optional: where there
are none, whoever migrated owns everything.

`masto_owner` owns the schema and alone may change it; `masto_writer` reads and writes rows;
`masto_reader` reads what does not lead to a person.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.tables import SCHEMA, TABLES, Table

OWNER, WRITER, READER = "masto_owner", "masto_writer", "masto_reader"
_SCHEMA = sql.Identifier(SCHEMA)
# The right to ANALYZE without owning the table; before it, PostgreSQL leaves such a table out.
_MAINTAIN_SINCE = 170_000


class RolesError(PlatformError):
    """The role that is to make the roles may not."""


def create_roles(postgres_url: SecretStr, passwords: Mapping[str, SecretStr | None]) -> None:
    """Make the three roles, hand the schema to its owner and give the others their rights.

    `passwords` maps role to password; a role without one cannot log in by password, but may be
    granted to one who can. Doing it twice is fine. `postgres_url` is of a superuser, or of one who
    has CREATEROLE and owns database and tables. Raises: ServiceUnavailableError, RolesError.
    """
    try:
        with connect(postgres_url) as connection:
            for role in (OWNER, WRITER, READER):
                _create_role(connection, role)
                if password := passwords.get(role):
                    _let_log_in(connection, role, password)
            _restrict_database(connection)
            _hand_over(connection)
            act_as_owner(connection)
            grant_rights(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        told = ": ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
        raise RolesError(
            f"roles cannot be made ({told}); set DATABASE_URL to a superuser, or to the database's"
            " owner with CREATEROLE, for this command"
        ) from error


def act_as_owner(connection: Connection[Any]) -> None:
    """Do the rest of the transaction as the schema's owner, so that all in it has one owner.

    Raises: psycopg.errors.InsufficientPrivilege for one who is no member of that role.
    """
    owner = connection.execute(
        "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = %s", (SCHEMA,)
    ).fetchone()
    if owner is not None:
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner[0])))


def grant_rights(connection: Connection[Any]) -> None:
    """Give writer and reader exactly their rights on what is there, where the roles exist.

    Run by the tables' owner, in a transaction.
    """
    roles = {
        name
        for (name,) in connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", ([WRITER, READER],)
        )
    }
    for role in roles:
        _grant(connection, "USAGE ON SCHEMA {}", _SCHEMA, to=role)
        if _has_versions(connection):
            _grant(connection, "SELECT ON {}", sql.Identifier(SCHEMA, "schema_version"), to=role)
        for table in _existing_tables(connection):
            # Takes the rights on columns as well, so that one that became personal is lost.
            connection.execute(
                sql.SQL("REVOKE ALL ON {} FROM {}").format(_name(table), sql.Identifier(role))
            )
    if WRITER in roles:
        _let_write(connection)
    if READER in roles:
        _let_read(connection)


def _let_write(connection: Connection[Any]) -> None:
    can_maintain = connection.info.server_version >= _MAINTAIN_SINCE
    for table in _existing_tables(connection):
        if table.is_view:
            _grant(connection, "SELECT ON {}", _name(table), to=WRITER)
            continue
        _grant(connection, "SELECT, INSERT, UPDATE, DELETE ON {}", _name(table), to=WRITER)
        if can_maintain:
            _grant(connection, "MAINTAIN ON {}", _name(table), to=WRITER)
    _grant(connection, "USAGE ON ALL SEQUENCES IN SCHEMA {}", _SCHEMA, to=WRITER)


def _let_read(connection: Connection[Any]) -> None:
    for table in _existing_tables(connection):
        if table.personal == ():
            # The whole table, so that `SELECT *` and `count(*)` work.
            _grant(connection, "SELECT ON {}", _name(table), to=READER)
        elif table.readable_columns:
            names = sql.SQL(", ").join(map(sql.Identifier, table.readable_columns))
            _grant(connection, "SELECT ({}) ON {}", names, _name(table), to=READER)


def _has_versions(connection: Connection[Any]) -> bool:
    found = connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.schema_version",)).fetchone()
    return found != (None,)


def _existing_tables(connection: Connection[Any]) -> list[Table]:
    found = {
        name
        for (name,) in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s)", (SCHEMA,)
        )
    }
    return [table for table in TABLES.values() if table.name in found]


def _create_role(connection: Connection[Any], role: str) -> None:
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        connection.execute(
            sql.SQL(
                "CREATE ROLE {} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
            ).format(sql.Identifier(role))
        )


def _let_log_in(connection: Connection[Any], role: str, password: SecretStr) -> None:
    # Hashed here: the server's log of statements never holds the password.
    hashed = connection.pgconn.encrypt_password(
        password.get_secret_value().encode(), role.encode(), b"scram-sha-256"
    )
    connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(hashed.decode())
        )
    )


def _restrict_database(connection: Connection[Any]) -> None:
    """Nobody enters but the three roles, the database's owner and superusers."""
    database = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for role in (OWNER, WRITER):
        _grant(connection, "CONNECT, TEMPORARY ON DATABASE {}", database, to=role)
    _grant(connection, "CONNECT ON DATABASE {}", database, to=READER)


def _hand_over(connection: Connection[Any]) -> None:
    """Make `masto_owner` the owner of the schema and of all in it."""
    is_member = connection.execute(
        "SELECT pg_has_role(current_user, %s, 'MEMBER')", (OWNER,)
    ).fetchone()
    if is_member != (True,):
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(OWNER)))
    owner = sql.Identifier(OWNER)
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(_SCHEMA))
    connection.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(_SCHEMA, owner))
    # A sequence that belongs to a column goes with its table.
    relations = connection.execute(
        "SELECT c.relname FROM pg_class c"
        " WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'S')"
        "   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND c.relkind = 'S'"
        "                      AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))",
        (SCHEMA,),
    ).fetchall()
    for (name,) in relations:
        connection.execute(
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(SCHEMA, name), owner)
        )
    routines = connection.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = to_regnamespace(%s)",
        (SCHEMA,),
    ).fetchall()
    for (signature,) in routines:
        connection.execute(
            # PostgreSQL's own spelling of a name with its arguments.
            sql.SQL("ALTER ROUTINE {} OWNER TO {}").format(sql.SQL(signature), owner)
        )


def _grant(connection: Connection[Any], right: str, *names: sql.Composable, to: str) -> None:
    connection.execute(
        sql.SQL("GRANT {} TO {}").format(sql.SQL(right).format(*names), sql.Identifier(to))
    )


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(SCHEMA, table.name)
