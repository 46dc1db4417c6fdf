"""What the tables hold of an account or a server, removed in one transaction.

What belongs here: the rows. Which accounts are meant stands in `withdrawn`; the dead letters in
Kafka are `mastodon.errors_topic`'s. Every table of the registry that has a post's `id` or a
`username` is covered, so that a new one is too.

What stays: tombstones (two ids, which keep deleted posts away), other people's posts that mention
the account, and the counts of the other batch tables until their next refresh, which the raised
version of the toots asks for.
"""

from collections.abc import Callable
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.toots.sink import prepare_session, remove_posts
from mastodon_assets.toots.withdrawn import Withdrawn
from mastodon_assets.warehouse.database import count_rows, take_write_lock
from mastodon_assets.warehouse.registry import (
    SCHEMA,
    TABLES,
    TOOT_ALIASES,
    TOOT_METRICS_WINDOWED,
    TOOTS_RAW,
    TOOTS_REJECTED,
    USER_AVG_LENGTH_WINDOWED,
    Table,
)

# `remove_posts` does these itself, by what it removes.
_BY_CHANGE = (TOOTS_RAW, TOOT_METRICS_WINDOWED, USER_AVG_LENGTH_WINDOWED)

# An alias with a tombstone stays: it keeps a deleted post away.
_REMOVE_ALIASES_OF_SERVERS = """
DELETE FROM masto.toot_aliases a
 WHERE a.instance = ANY(%s)
   AND NOT EXISTS (SELECT FROM masto.toots_deleted d
                    WHERE (d.instance, d.status_id) = (a.instance, a.status_id))
"""


def purge_rows(connection: Connection[Any], covered: Withdrawn) -> dict[str, int]:
    """Remove all of those that `covered` covers, in the caller's transaction; table to rows gone.

    Takes the write lock. Windows that others share become smaller and do not count as gone.
    """
    take_write_lock(connection)
    prepare_session(connection)
    usernames = _names(connection, "username", lambda name: covered.covers(name, None))
    instances = _names(connection, "instance", lambda name: covered.covers(None, name))
    before = {table.name: count_rows(connection, table) for table in _BY_CHANGE}
    remove_posts(connection, usernames=usernames, instances=instances)
    removed = {
        table.name: before[table.name] - count_rows(connection, table) for table in _BY_CHANGE
    }
    for table in TABLES.values():
        if table.is_view or table in _BY_CHANGE:
            continue
        if "id" in table.column_names:
            removed[table.name] = _remove_by_id(connection, table)
        elif "username" in table.column_names:
            removed[table.name] = _remove_by_username(connection, table, usernames)
    of_servers = connection.execute(_REMOVE_ALIASES_OF_SERVERS, (instances,)).rowcount
    removed[TOOT_ALIASES.name] += of_servers
    removed[TOOTS_REJECTED.name] = _remove_rejected(connection, covered)
    return removed


def _names(
    connection: Connection[Any], column: str, is_covered: Callable[[str], bool]
) -> list[str]:
    """The values of `column` in any table of the registry that are covered."""
    tables = [
        table for table in TABLES.values() if column in table.column_names and not table.is_view
    ]
    query = sql.SQL(" UNION ").join(
        sql.SQL("SELECT {} FROM {}").format(
            sql.Identifier(column), sql.Identifier(SCHEMA, table.name)
        )
        for table in tables
    )
    return [name for (name,) in connection.execute(query) if is_covered(name)]


def _remove_by_id(connection: Connection[Any], table: Table) -> int:
    statement = sql.SQL("DELETE FROM {} WHERE id IN (SELECT id FROM pg_temp.dead)")
    return connection.execute(statement.format(sql.Identifier(SCHEMA, table.name))).rowcount


def _remove_by_username(connection: Connection[Any], table: Table, usernames: list[str]) -> int:
    statement = sql.SQL("DELETE FROM {} WHERE username = ANY(%s)")
    name = sql.Identifier(SCHEMA, table.name)
    return connection.execute(statement.format(name), (usernames,)).rowcount


def _remove_rejected(connection: Connection[Any], covered: Withdrawn) -> int:
    removed = 0
    with connection.cursor(name="rejected") as letters, connection.cursor() as cursor:
        letters.execute("SELECT topic, partition, kafka_offset, payload FROM masto.toots_rejected")
        for *place, payload in letters:
            if covered.covers_record(payload):
                cursor.execute(
                    "DELETE FROM masto.toots_rejected"
                    " WHERE (topic, partition, kafka_offset) = (%s, %s, %s)",
                    place,
                )
                removed += cursor.rowcount
    return removed
