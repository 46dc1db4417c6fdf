"""Rows of a table: written by Arrow, counted.

What belongs here: operations on the rows of any table. What a table means is in `tables`.
"""

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from mastodon_assets.warehouse.tables import SCHEMA, Table

if TYPE_CHECKING:
    import pyarrow as pa


def copy_arrow(
    connection: psycopg.Connection[Any], target: sql.Identifier, rows: "pa.Table"
) -> None:
    """Append `rows` to the table `target` by binary COPY.

    Columns are matched by name and types must agree. Timestamps must be microseconds in UTC. On
    arm64, for which pgpq has no wheel, the rows are written as text.
    """
    try:
        from pgpq import ArrowToPostgresBinaryEncoder
    except ImportError:
        _copy_as_text(connection, target, rows)
        return
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT BINARY)").format(
        target, _identifiers(rows.schema.names)
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in rows.to_batches(max_chunksize=10_000):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())


def _copy_as_text(
    connection: psycopg.Connection[Any], target: sql.Identifier, rows: "pa.Table"
) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(target, _identifiers(rows.schema.names))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in rows.to_batches(max_chunksize=10_000):
            columns = [column.to_pylist() for column in batch.columns]
            for row in zip(*columns, strict=True):
                copy.write_row(row)


def count_rows(connection: psycopg.Connection[Any], table: Table) -> int:
    """Count the rows of a table or view."""
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(SCHEMA, table.name))
    ).fetchone()
    assert row is not None
    return int(row[0])


def _identifiers(names: Any) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
