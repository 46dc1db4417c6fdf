"""Rows of a table: written by Arrow, replaced by their difference, counted.

What belongs here: operations on the rows of any table. What a table means is in `tables`.
"""

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from mastodon_assets.warehouse.staging import create_staged_rows
from mastodon_assets.warehouse.tables import SCHEMA, Table

if TYPE_CHECKING:
    import pyarrow as pa


def copy_arrow(
    connection: psycopg.Connection[Any], target: sql.Identifier, rows: "pa.Table"
) -> None:
    """Append `rows` to the table `target` by binary COPY.

    Columns are matched by name and types must agree. Timestamps must be microseconds in UTC.
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
    """Replace the rows of `table` by `rows`, writing only what differs.

    Readers see the old rows until the transaction commits. Indexes and grants stay.

    Args:
        connection: A transaction.
        table: The table; not a view.
        rows: Arrow table or SELECT with the table's stored columns, in any order, one row per key.

    Returns:
        The number of rows deleted, inserted or updated.
    """
    target = sql.Identifier(SCHEMA, table.name)
    names = [column.name for column in table.stored_columns]
    staged = create_staged_rows(connection, table)
    if isinstance(rows, sql.Composed):
        connection.execute(
            sql.SQL("INSERT INTO {staged} ({names}) SELECT {names} FROM ({rows}) computed").format(
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
    """Count the rows of a table or view."""
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(SCHEMA, table.name))
    ).fetchone()
    assert row is not None
    return int(row[0])


def _identifiers(names: Any) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _qualified(alias: str, names: Any) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def _equal_keys(table: Table) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in table.key
    )
