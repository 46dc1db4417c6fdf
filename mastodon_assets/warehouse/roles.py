"""Database roles: `masto_owner`, `masto_writer`, `masto_moderator`, `masto_reader`.

What belongs here: creating the roles, once per server, and granting their rights on the tables.
Rights follow from the table catalog and are granted again after each migration. Roles are optional:
without them, whoever migrated owns everything.

`masto_owner` owns the schema and alone may change it; `masto_writer` reads and writes rows;
`masto_moderator` also reads posts and scores by row, and labels posts by hand; `masto_reader` reads
what does not lead to a person.
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
MODERATOR = "masto_moderator"
ROLES = (OWNER, WRITER, MODERATOR, READER)
_SCHEMA = sql.Identifier(SCHEMA)
# Since then there is a right to ANALYZE without owning the table; before, PostgreSQL skips it.
_MAINTAIN_SINCE = 170_000
# Since then a member of a role may be one that cannot act as it.
_SET_SINCE = 160_000


class RolesError(PlatformError):
    """The role in DATABASE_URL may not create roles."""


def create_roles(postgres_url: SecretStr, passwords: Mapping[str, SecretStr | None]) -> None:
    """Create the roles, make one the schema's owner and grant the others their rights.

    Running it again is safe.

    Args:
        postgres_url: A superuser, or a role with CREATEROLE that owns database and tables.
        passwords: Role to password. A role without one cannot log in by password, but may be
            granted to another role.

    Raises:
        ServiceUnavailableError: The database does not answer.
        RolesError: The role in `postgres_url` may not do this.
    """
    try:
        with connect(postgres_url) as connection:
            for role in ROLES:
                _create_role(connection, role)
                if password := passwords.get(role):
                    _let_log_in(connection, role, password)
            _restrict_database(connection)
            _hand_over(connection)
            act_as_owner(connection)
            grant_rights(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        reason = ": ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
        raise RolesError(
            f"roles cannot be created ({reason}); set DATABASE_URL to a superuser, or to the"
            " database's owner with CREATEROLE, for this command"
        ) from error


def act_as_owner(connection: Connection[Any]) -> None:
    """Run the rest of the transaction as the schema's owner, who then owns all new objects.

    Raises:
        psycopg.errors.InsufficientPrivilege: The role is no member of the owner's.
    """
    owner = connection.execute(
        "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = %s", (SCHEMA,)
    ).fetchone()
    if owner is not None:
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner[0])))


def grant_rights(connection: Connection[Any]) -> None:
    """Grant writer and reader exactly their rights on the existing tables, if the roles exist.

    The tables' owner runs this, in a transaction.
    """
    roles = {
        name
        for (name,) in connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", ([WRITER, MODERATOR, READER],)
        )
    }
    for role in roles:
        _grant(connection, "USAGE ON SCHEMA {}", _SCHEMA, to=role)
        if _has_versions(connection):
            _grant(connection, "SELECT ON {}", sql.Identifier(SCHEMA, "schema_version"), to=role)
        for table in _existing_tables(connection):
            # Revokes the rights on columns too, so that a column that became personal is hidden.
            connection.execute(
                sql.SQL("REVOKE ALL ON {} FROM {}").format(_name(table), sql.Identifier(role))
            )
    if WRITER in roles:
        _let_write(connection)
    for role in roles & {MODERATOR, READER}:
        _let_read(connection, role)


def _let_write(connection: Connection[Any]) -> None:
    can_maintain = connection.info.server_version >= _MAINTAIN_SINCE
    for table in _existing_tables(connection):
        if table.is_view:
            _grant(connection, "SELECT ON {}", _name(table), to=WRITER)
            continue
        _grant(connection, "SELECT, INSERT, UPDATE, DELETE ON {}", _name(table), to=WRITER)
        if can_maintain:
            _grant(connection, "MAINTAIN ON {}", _name(table), to=WRITER)
    # pg_dump reads their values.
    _grant(connection, "USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {}", _SCHEMA, to=WRITER)


def _let_read(connection: Connection[Any], role: str) -> None:
    for table in _existing_tables(connection):
        if table.is_moderated:
            if role == MODERATOR:
                _grant(connection, "SELECT ON {}", _name(table), to=role)
                if table.moderator_writes:
                    _grant(connection, "INSERT, UPDATE, DELETE ON {}", _name(table), to=role)
        elif table.personal == ():
            # The whole table, so that `SELECT *` and `count(*)` work.
            _grant(connection, "SELECT ON {}", _name(table), to=role)
        elif table.readable_columns:
            names = sql.SQL(", ").join(map(sql.Identifier, table.readable_columns))
            _grant(connection, "SELECT ({}) ON {}", names, _name(table), to=role)


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
    # Hashed here, so that the server's statement log never has the password.
    hashed = connection.pgconn.encrypt_password(
        password.get_secret_value().encode(), role.encode(), b"scram-sha-256"
    )
    connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(hashed.decode())
        )
    )


def _restrict_database(connection: Connection[Any]) -> None:
    """Let only our roles, the database's owner and superusers connect."""
    database = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for role in (OWNER, WRITER):
        _grant(connection, "CONNECT, TEMPORARY ON DATABASE {}", database, to=role)
    for role in (MODERATOR, READER):
        _grant(connection, "CONNECT ON DATABASE {}", database, to=role)


def _hand_over(connection: Connection[Any]) -> None:
    """Make `masto_owner` the owner of the schema and of all in it."""
    # Whoever created a role without being superuser is a member that may grant it, not become it.
    membership = "SET" if connection.info.server_version >= _SET_SINCE else "MEMBER"
    may_act = connection.execute(
        "SELECT pg_has_role(current_user, %s, %s)", (OWNER, membership)
    ).fetchone()
    if may_act != (True,):
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(OWNER)))
    owner = sql.Identifier(OWNER)
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(_SCHEMA))
    connection.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(_SCHEMA, owner))
    # The owner of a column's sequence follows its table.
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
