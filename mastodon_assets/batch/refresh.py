"""Refreshing a batch table, from the change log or from all posts.

What belongs here: which of the two, and the transaction. What a table contains is in `tables`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.batch.tables import BATCH_TABLES, BatchTable, read_toots
from mastodon_assets.spark.jvm_end import jvm_end_explained
from mastodon_assets.warehouse.change_log import advance_watermark, has_changes_since
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rows import replace_rows
from mastodon_assets.warehouse.staging import create_changed_sums, with_staging
from mastodon_assets.warehouse.tables import SCHEMA, Table
from mastodon_assets.warehouse.watermarks import toots_version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_STAGE_CHANGES = """
  WITH changes AS (SELECT * FROM masto.toot_changes WHERE version > %(since)s AND version <= %(to)s)
SELECT * FROM ({of_changes}) summed WHERE {is_change}
"""

_ADD_TO_SUMS = """
MERGE INTO {sums} t USING {changed_sums} c ON {same_key}
 WHEN MATCHED AND t.toots_count + c.toots_count = 0 THEN DELETE
 WHEN MATCHED THEN UPDATE SET {updated}
 WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})
"""

_REMOVE_ROWS = """
DELETE FROM {table} t
 WHERE {is_touched} AND NOT EXISTS (SELECT FROM ({rows}) c WHERE {same_key})
"""

_STORE_ROWS = """
INSERT INTO {table} AS old ({columns}) SELECT {columns} FROM ({rows}) t WHERE {is_touched}
    ON CONFLICT ({key}) DO UPDATE SET {assignments} WHERE ({old}) IS DISTINCT FROM ({new})
"""


@dataclass(frozen=True)
class Refreshed:
    """The rows changed in the batch table, and whether all posts were read for it."""

    rows_changed: int
    is_from_all: bool


@jvm_end_explained()
def refresh_batch_table(
    session: "Callable[[], SparkSession]",
    postgres_url: SecretStr,
    name: str,
    *,
    min_toots: int,
    rebuild: bool = False,
) -> Refreshed:
    """Refresh the table `name` in one transaction.

    The change log updates it. If the log does not have all changes, or if `rebuild` is set, Spark
    computes the table from all posts. Both give the same rows.

    Args:
        session: Called if Spark is needed.
        postgres_url: DATABASE_URL.
        name: A key of `BATCH_TABLES`.
        min_toots: ACTIVITY_MIN_TOOTS.
        rebuild: Compute the table from all posts.

    Raises:
        SparkEndedError: Spark's JVM ended, for lack of memory for instance.
        ServiceUnavailableError: PostgreSQL or Spark does not answer.
        MissingTablesError: The database is not migrated.
    """
    batch = BATCH_TABLES[name]
    parameters = {"min_toots": min_toots}
    if not rebuild:
        with transaction(postgres_url) as connection:
            take_write_lock(connection)
            changed = _apply_change_log(connection, batch, parameters)
        if changed is not None:
            return Refreshed(changed, is_from_all=False)
    spark = session()
    with transaction(postgres_url, snapshot=True) as connection:
        version = toots_version(connection)
        rows = batch.of_all(read_toots(spark, postgres_url, connection)).toArrow()
    with transaction(postgres_url) as connection:
        take_write_lock(connection)
        changed = replace_rows(connection, batch.sums, rows)
        if batch.rows:
            changed = _store_rows(connection, batch, parameters, touched=sql.SQL("true"))
        _note(connection, batch, version, parameters)
    return Refreshed(changed, is_from_all=True)


def _apply_change_log(
    connection: Connection[Any], batch: BatchTable, parameters: dict[str, Any]
) -> int | None:
    """Apply the change log; return the rows changed, or None if the log does not suffice."""
    shown = connection.execute(
        "SELECT toots_version, parameters FROM masto.asset_progress WHERE asset = %s",
        (batch.table.name,),
    ).fetchone()
    if shown is None or shown[1] != str(parameters):
        return None
    versions = {"since": shown[0], "to": toots_version(connection)}
    if not has_changes_since(connection, **versions):
        return None
    if versions["since"] == versions["to"]:
        return 0
    columns = [column.name for column in batch.sums.columns]
    summed = [name for name in columns if name not in batch.sums.key]
    create_changed_sums(
        connection,
        sql.SQL(_STAGE_CHANGES).format(
            of_changes=sql.SQL(batch.of_changes),
            is_change=sql.SQL(" OR ").join(
                sql.SQL("{} <> 0").format(sql.Identifier(name)) for name in summed
            ),
        ),
        versions,
    )
    changed = connection.execute(
        with_staging(
            _ADD_TO_SUMS,
            sums=_name(batch.sums),
            same_key=_same_key(batch.sums),
            updated=sql.SQL(", ").join(
                sql.SQL("{0} = t.{0} + c.{0}").format(sql.Identifier(name)) for name in summed
            ),
            columns=_names(columns),
            values=_names(columns, "c"),
        )
    ).rowcount
    if batch.rows:
        is_touched = with_staging(
            "({key_of_row}) IN (SELECT {key} FROM {changed_sums})",
            key_of_row=_names(batch.sums.key, "t"),
            key=_names(batch.sums.key),
        )
        touched = is_touched if batch.has_key_of_sums else sql.SQL("true")
        changed = _store_rows(connection, batch, parameters, touched=touched)
    _note(connection, batch, versions["to"], parameters)
    connection.execute(with_staging("DROP TABLE {changed_sums}"))
    return changed


def _store_rows(
    connection: Connection[Any],
    batch: BatchTable,
    parameters: dict[str, Any],
    *,
    touched: sql.Composable,
) -> int:
    """Store the touched rows from their sums; return the number of rows changed."""
    names = [column.name for column in batch.table.columns]
    parts = {
        "table": _name(batch.table),
        "rows": sql.SQL(batch.rows or ""),
        "is_touched": touched,
        "same_key": _same_key(batch.table),
        "columns": _names(names),
        "key": _names(batch.table.key),
        "assignments": sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names
        ),
        "old": _names(names, "old"),
        "new": _names(names, "excluded"),
    }
    removed = connection.execute(sql.SQL(_REMOVE_ROWS).format(**parts), parameters).rowcount
    stored = connection.execute(sql.SQL(_STORE_ROWS).format(**parts), parameters).rowcount
    return removed + stored


def _note(
    connection: Connection[Any], batch: BatchTable, version: int, parameters: dict[str, Any]
) -> None:
    advance_watermark(
        connection, batch.table.name, toots_version=version, parameters=str(parameters)
    )


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(SCHEMA, table.name)


def _names(names: Any, alias: str | None = None) -> sql.Composed:
    parts = (alias,) if alias else ()
    return sql.SQL(", ").join(sql.Identifier(*parts, name) for name in names)


def _same_key(table: Table) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("t.{0} = c.{0}").format(sql.Identifier(name)) for name in table.key
    )
