"""What the tables hold of an account or a server, removed in one transaction.

What belongs here: the rows. Which accounts are meant is in `suppression_list`; dead letters in
Kafka are `mastodon.errors_topic`'s. Every table of the registry that has a post's `id` or a
`username` is covered, so that a new one is too.

What stays: tombstones (two ids, which keep deleted posts away), other people's posts that mention
the account, and the counts of the other batch tables until their next refresh, which the raised
version of the toots asks for.
"""

from collections.abc import Callable
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.stream.merge import prepare_session, remove_posts
from mastodon_assets.warehouse.change_log import clear_change_log
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets.warehouse.tables import (
    SCHEMA,
    TABLES,
    TOOT_CHANGES,
    TOOT_METRICS_WINDOWED,
    TOOTS_RAW,
    TOOTS_REJECTED,
    Table,
)

# An alias with a tombstone stays: it keeps a deleted post away.
_REMOVE_ALIASES_OF_SERVERS = """
DELETE FROM masto.toot_aliases a
 WHERE a.instance = ANY(%s)
   AND NOT EXISTS (SELECT FROM masto.toots_deleted d
                    WHERE (d.instance, d.status_id) = (a.instance, a.status_id))
"""


def purge_rows(connection: Connection[Any], covered: SuppressionList) -> dict[str, int]:
    """Remove all of those that `covered` covers, in the caller's transaction; table to rows gone.

    Takes the write lock. Windows that others share become smaller and do not count as gone.
    """
    take_write_lock(connection)
    prepare_session(connection)
    usernames = _names(connection, "username", lambda name: covered.matches(name, None))
    instances = _names(connection, "instance", lambda name: covered.matches(None, name))
    before = _count(connection)
    remove_posts(connection, usernames=usernames, instances=instances)
    for table in _tables_with("id"):
        _remove_by_id(connection, table)
    for table in _tables_with("username"):
        _remove_by_username(connection, table, usernames)
    # The batch tables are made anew then: a part of the changes would not add up.
    clear_change_log(connection)
    connection.execute(_REMOVE_ALIASES_OF_SERVERS, (instances,))
    _remove_rejected(connection, covered)
    return {name: before[name] - count for name, count in _count(connection).items()}


def _count(connection: Connection[Any]) -> dict[str, int]:
    """Rows of the tables that a purge may take from."""
    tables = {TOOTS_RAW.name: TOOTS_RAW, TOOT_METRICS_WINDOWED.name: TOOT_METRICS_WINDOWED}
    for table in (*_tables_with("username"), *_tables_with("id"), TOOTS_REJECTED):
        tables[table.name] = table
    return {name: count_rows(connection, table) for name, table in tables.items()}


def _tables_with(column: str) -> list[Table]:
    """Those that derive from `toots_raw` and have `column`."""
    return [
        table
        for table in TABLES.values()
        if column in table.column_names
        and not table.is_view
        and table not in (TOOTS_RAW, TOOT_CHANGES)
    ]


def _names(
    connection: Connection[Any], column: str, is_covered: Callable[[str], bool]
) -> list[str]:
    """The values of `column` in any table that are covered."""
    query = sql.SQL(" UNION ").join(
        sql.SQL("SELECT {} FROM {}").format(
            sql.Identifier(column), sql.Identifier(SCHEMA, table.name)
        )
        for table in (TOOTS_RAW, *_tables_with(column))
    )
    return [name for (name,) in connection.execute(query) if is_covered(name)]


def _remove_by_id(connection: Connection[Any], table: Table) -> None:
    statement = sql.SQL("DELETE FROM {} WHERE id IN (SELECT id FROM pg_temp.dead)")
    connection.execute(statement.format(sql.Identifier(SCHEMA, table.name)))


def _remove_by_username(connection: Connection[Any], table: Table, usernames: list[str]) -> None:
    statement = sql.SQL("DELETE FROM {} WHERE username = ANY(%s)")
    connection.execute(statement.format(sql.Identifier(SCHEMA, table.name)), (usernames,))


def _remove_rejected(connection: Connection[Any], covered: SuppressionList) -> None:
    with connection.cursor(name="rejected") as dead_letters:
        dead_letters.execute(
            "SELECT topic, partition, kafka_offset, payload FROM masto.toots_rejected"
        )
        for *place, payload in dead_letters:
            if covered.matches_record(payload):
                connection.execute(
                    "DELETE FROM masto.toots_rejected"
                    " WHERE (topic, partition, kafka_offset) = (%s, %s, %s)",
                    place,
                )
