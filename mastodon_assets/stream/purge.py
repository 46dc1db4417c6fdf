"""The purge: all rows of an account or a server removed in one transaction.

What belongs here: the rows. The accounts are in `warehouse.suppression_list`; dead letters in Kafka
are handled by `ingest.dead_letters`. Every table of the table catalog that has a post's `id` or a
`username` is included, so that a new table is too.

What stays: tombstones (two ids each, which keep deleted posts away) and other people's posts that
mention the account.
"""

from collections.abc import Callable
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.stream.merge import prepare_session, remove_posts
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.staging import with_staging
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets.warehouse.tables import (
    SCHEMA,
    TABLES,
    TOOT_METRICS_WINDOWED,
    TOOTS_RAW,
    TOOTS_REJECTED,
    Table,
)

# An alias with a tombstone stays, because it keeps a deleted post away.
_REMOVE_ALIASES_OF_SERVERS = """
DELETE FROM masto.toot_aliases a
 WHERE a.instance = ANY(%s)
   AND NOT EXISTS (SELECT FROM masto.toots_deleted d
                    WHERE (d.instance, d.status_id) = (a.instance, a.status_id))
"""


def purge_rows(connection: Connection[Any], suppressed: SuppressionList) -> dict[str, int]:
    """Remove all rows of suppressed accounts and servers in the caller's transaction.

    Takes the write lock.

    Returns:
        Table to rows removed. A window that others share becomes smaller and does not count.
    """
    take_write_lock(connection)
    prepare_session(connection)
    usernames = _names(connection, "username", lambda name: suppressed.matches(name, None))
    usernames = sorted({*usernames, *_usernames_by_server(connection, suppressed)})
    instances = _names(connection, "instance", lambda name: suppressed.matches(None, name))
    before = _count(connection)
    remove_posts(connection, usernames=usernames, instances=instances)
    for table in _tables_with("id"):
        _remove_by_id(connection, table)
    for table in _tables_with("username"):
        _remove_by_username(connection, table, usernames)
    connection.execute(_REMOVE_ALIASES_OF_SERVERS, (instances,))
    _remove_rejected(connection, suppressed)
    return {name: before[name] - count for name, count in _count(connection).items()}


def _count(connection: Connection[Any]) -> dict[str, int]:
    """Count the rows of the tables that a purge may remove rows from."""
    tables = {TOOTS_RAW.name: TOOTS_RAW, TOOT_METRICS_WINDOWED.name: TOOT_METRICS_WINDOWED}
    for table in (*_tables_with("username"), *_tables_with("id"), TOOTS_REJECTED):
        tables[table.name] = table
    return {name: count_rows(connection, table) for name, table in tables.items()}


def _tables_with(column: str) -> list[Table]:
    """List the stored tables that derive from `toots_raw` and have `column`."""
    return [
        table
        for table in TABLES.values()
        if column in table.column_names and not table.is_view and table != TOOTS_RAW
    ]


def _names(
    connection: Connection[Any], column: str, is_suppressed: Callable[[str], bool]
) -> list[str]:
    """List the values of `column` in any table that are suppressed."""
    query = sql.SQL(" UNION ").join(
        sql.SQL("SELECT {} FROM {}").format(
            sql.Identifier(column), sql.Identifier(SCHEMA, table.name)
        )
        for table in (TOOTS_RAW, *_tables_with(column))
    )
    return [name for (name,) in connection.execute(query) if is_suppressed(name)]


def _usernames_by_server(connection: Connection[Any], suppressed: SuppressionList) -> set[str]:
    """Return the authors whom the list has under the host of their uris."""
    pairs = connection.execute(
        "SELECT DISTINCT username, substring(uri from '^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+')"
        " FROM masto.toots_raw"
    )
    return {username for username, server in pairs if suppressed.matches(username, None, server)}


def _remove_by_id(connection: Connection[Any], table: Table) -> None:
    connection.execute(
        with_staging(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM {tombstoned})",
            table=sql.Identifier(SCHEMA, table.name),
        )
    )


def _remove_by_username(connection: Connection[Any], table: Table, usernames: list[str]) -> None:
    statement = sql.SQL("DELETE FROM {} WHERE username = ANY(%s)")
    connection.execute(statement.format(sql.Identifier(SCHEMA, table.name)), (usernames,))


def _remove_rejected(connection: Connection[Any], suppressed: SuppressionList) -> None:
    with connection.cursor(name="rejected") as dead_letters:
        dead_letters.execute(
            "SELECT topic, partition, kafka_offset, payload FROM masto.toots_rejected"
        )
        for *position, payload in dead_letters:
            if suppressed.matches_record(payload):
                connection.execute(
                    "DELETE FROM masto.toots_rejected"
                    " WHERE (topic, partition, kafka_offset) = (%s, %s, %s)",
                    position,
                )
