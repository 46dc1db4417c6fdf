"""Connections, transactions and locks; rows by Arrow; whole tables replaced by their difference.

What belongs here: how PostgreSQL is talked to, for any table. What a table means stands elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.warehouse.tables import SCHEMA, Table

if TYPE_CHECKING:
    import pyarrow as pa

# Keys of advisory locks; any number does as long as nobody else uses it.
MIGRATION_LOCK = 4_611_001
_WRITE_LOCK = 4_611_002
STREAM_LOCK = 4_611_003


class MissingTablesError(PlatformError):
    """The database answers but has no tables of ours yet."""


class MissingRightsError(PlatformError):
    """The role of DATABASE_URL may not do what was asked of it."""


def connect(postgres_url: SecretStr) -> psycopg.Connection[Any]:
    """A connection in UTC that notices a dead server. Close it, or use `transaction`.

    Raises: ServiceUnavailableError, without the password, where the server does not answer or
    refuses.
    """
    try:
        return psycopg.connect(
            postgres_url.get_secret_value(),
            connect_timeout=3,
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
            application_name="mastodon_assets",
            # The server, too, notices a client that is gone, and gives its locks back.
            options="-c timezone=UTC -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5"
            " -c tcp_keepalives_count=3",
        )
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"no connection to PostgreSQL ({_reason(error)}); run: mastodon-assets up"
            " (or look at DATABASE_URL)"
        ) from error


@contextmanager
def transaction(
    postgres_url: SecretStr, *, snapshot: bool = False
) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose work is committed at the end, or rolled back and closed on an error.

    `snapshot` makes it read-only and lets all its reads see the same moment.
    Raises: ServiceUnavailableError (also where the server goes away meanwhile), MissingTablesError,
    MissingRightsError.
    """
    try:
        with connect(postgres_url) as connection:
            if snapshot:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
            yield connection
    except psycopg.errors.UndefinedTable as error:
        raise MissingTablesError(
            f"{_reason(error)}; run: mastodon-assets up (it applies migrations)"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise MissingRightsError(
            f"the role in DATABASE_URL may not do this ({_reason(error)}); nothing was written;"
            " use masto_writer, or see: mastodon-assets roles --help"
        ) from error
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"PostgreSQL broke off ({_reason(error)}); this step wrote nothing: run it again"
        ) from error


def take_write_lock(connection: psycopg.Connection[Any]) -> None:
    """Wait for, and hold until the transaction ends, the lock of every writer of toots.

    Taken first by each transaction that writes `toots_raw` or anything derived from it.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITE_LOCK,))


def toots_version(connection: psycopg.Connection[Any]) -> int:
    """The counter of transactions that changed `toots_raw`."""
    row = connection.execute(
        "SELECT version FROM masto.data_versions WHERE dataset = 'toots_raw'"
    ).fetchone()
    assert row is not None, "migration 0001 inserts this row"
    return int(row[0])


def bump_toots_version(connection: psycopg.Connection[Any]) -> int:
    """Say that this transaction changes rows of `toots_raw`; the write lock must be held.

    Returns the version that the change makes.
    """
    row = connection.execute(
        "UPDATE masto.data_versions SET version = version + 1, changed_at = now()"
        " WHERE dataset = 'toots_raw' RETURNING version"
    ).fetchone()
    assert row is not None, "migration 0001 inserts this row"
    return int(row[0])


def note_progress(
    connection: psycopg.Connection[Any],
    asset: str,
    *,
    toots_version: int,
    model_version: str | None = None,
    parameters: str | None = None,
) -> None:
    """Record which data `asset` now shows; call it in the transaction that writes the result."""
    connection.execute(
        """
        INSERT INTO masto.asset_progress AS p (asset, toots_version, model_version, parameters)
        VALUES (%s, %s, %s, %s)
        ON CONFLICT (asset) DO UPDATE
           SET toots_version = excluded.toots_version,
               model_version = excluded.model_version,
               parameters = excluded.parameters,
               updated_at = now()
         WHERE (p.toots_version, p.model_version, p.parameters)
               IS DISTINCT FROM
               (excluded.toots_version, excluded.model_version, excluded.parameters)
        """,
        (asset, toots_version, model_version, parameters),
    )


def copy_arrow(
    connection: psycopg.Connection[Any], target: sql.Identifier, rows: "pa.Table"
) -> None:
    """Append `rows` to the table `target`; its columns are found by name, types must agree.

    Timestamps must be microseconds in UTC. Binary COPY: nothing is quoted or parsed on the way.
    """
    from pgpq import ArrowToPostgresBinaryEncoder

    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT BINARY)").format(
        target, _identifiers(rows.schema.names)
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in rows.to_batches(max_chunksize=10_000):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())


def replace_rows(
    connection: psycopg.Connection[Any], table: Table, rows: "pa.Table | sql.Composed"
) -> int:
    """Make `table` hold exactly `rows`, touching only what differs; returns the rows changed.

    `rows`, a frame or a SELECT, has the table's stored columns, in any order, one row a key.
    Readers see the old table until the transaction commits; indexes and grants stay; a row that is
    right is not written.
    """
    staged = sql.Identifier("pg_temp", f"staged_{table.name}")
    target = sql.Identifier(SCHEMA, table.name)
    names = [column.name for column in table.stored_columns]
    connection.execute(
        sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            sql.Identifier(f"staged_{table.name}"), _identifiers(names), target
        )
    )
    if isinstance(rows, sql.Composed):
        connection.execute(
            sql.SQL("INSERT INTO {staged} ({names}) SELECT {names} FROM ({rows}) made").format(
                staged=staged, names=_identifiers(names), rows=rows
            )
        )
    else:
        copy_arrow(connection, staged, rows.select(names))
    connection.execute(sql.SQL("ANALYZE {}").format(staged))
    deleted = connection.execute(
        sql.SQL("DELETE FROM {} t WHERE NOT EXISTS (SELECT FROM {} s WHERE {})").format(
            target, staged, _equal_keys(table)
        )
    )
    written = connection.execute(
        sql.SQL(
            "INSERT INTO {target} AS t ({names}) SELECT {names} FROM {staged}"
            " ON CONFLICT ({key}) DO UPDATE SET {assignments}"
            " WHERE ({old}) IS DISTINCT FROM ({new})"
        ).format(
            target=target,
            names=_identifiers(names),
            staged=staged,
            key=_identifiers(table.key),
            assignments=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names
            ),
            old=_qualified("t", names),
            new=_qualified("excluded", names),
        )
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(staged))
    return deleted.rowcount + written.rowcount


def count_rows(connection: psycopg.Connection[Any], table: Table) -> int:
    """Rows of a table or view."""
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(SCHEMA, table.name))
    ).fetchone()
    assert row is not None
    return int(row[0])


def _reason(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("connection failed: ")


def _identifiers(names: Any) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _qualified(alias: str, names: Any) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def _equal_keys(table: Table) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in table.key
    )
