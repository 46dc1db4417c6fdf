"""The purge: all rows of an account or a server removed.

What belongs here: which rows. They go in chunks, so that the stream writes in between; a purge that
is interrupted is completed by the next. The accounts are in `warehouse.suppression_list`; dead
letters in Kafka are handled by `ingest.dead_letters`. Every table of the table catalog that has a
post's `id` or a `username` is included, so that a new table is too.

What stays: tombstones (two ids each, which keep deleted posts away) and other people's posts that
mention the account.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.stream.removal import Removal, delete_rows, stored_tables_with, tables_by_post
from mastodon_assets.stream.windows import WINDOW_SUMS
from mastodon_assets.warehouse.locks import write_ranges
from mastodon_assets.warehouse.post_sums import POST_SUMS, counted_rows
from mastodon_assets.warehouse.staging import PURGED_USERNAMES, with_staging
from mastodon_assets.warehouse.sum_tables import names_of
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets.warehouse.tables import (
    HOME_IDS,
    SCHEMA,
    TOOT_ALIASES,
    TOOTS_RAW,
    TOOTS_REJECTED,
    USER_TOTALS,
)

_OF_ACCOUNTS: LiteralString = "username IN (SELECT name FROM {purged_usernames})"
_POSTS: LiteralString = f"{_OF_ACCOUNTS} OR instance = ANY(%(instances)s)"
# An alias with a tombstone stays, because it keeps a deleted post away.
_ALIASES_OF_SERVERS: LiteralString = """
instance = ANY(%(instances)s)
   AND NOT EXISTS (SELECT FROM masto.toots_deleted d
                    WHERE (d.instance, d.status_id) = (t.instance, t.status_id))
"""
_FOUND = counted_rows(with_staging("{posts_to_remove} JOIN masto.toots_raw USING (id)"))
# Rows of sums that nothing is left of.
_COUNT_EMPTIED = """
SELECT count(*) FROM {table} stored LEFT JOIN ({removed}) removed USING ({keys})
 WHERE stored.toots_count <= removed.toots_count OR {is_of_account}
"""
_COUNT_ALIASES = """
SELECT count(*) FROM masto.toot_aliases t
 WHERE id IN (SELECT id FROM {posts_to_remove}) OR ({of_servers})
"""
_SUMS = (*WINDOW_SUMS.values(), *(sums for sums in POST_SUMS if sums.table == USER_TOTALS))


def purge_rows(
    connection: Connection[Any], suppressed: SuppressionList, *, dry_run: bool = False
) -> dict[str, int]:
    """Remove all rows of suppressed accounts and servers, in chunks that are committed.

    The accounts and servers must be on the stored suppression list, so that none of their posts is
    stored meanwhile.

    Args:
        connection: A connection without a transaction.
        suppressed: The accounts and servers.
        dry_run: Count only.

    Returns:
        Table to rows removed. A window that others share becomes smaller and does not count.
    """
    with connection.transaction():
        usernames = _names(connection, "username", lambda name: suppressed.matches(name, None))
        usernames = sorted({*usernames, *_usernames_by_server(connection, suppressed)})
        instances = _names(connection, "instance", lambda name: suppressed.matches(None, name))
        rejected = _find_rejected(connection, suppressed)
        _stage_usernames(connection, usernames)
    parameters = {"instances": instances}
    removal = Removal(connection, _POSTS, parameters)
    with connection.transaction():
        counts = {TOOTS_RAW.name: removal.count, TOOTS_REJECTED.name: len(rejected)}
        counts |= _count_sums(connection, parameters) | _count_by_post(connection, parameters)
    if dry_run:
        return counts
    removal.remove()
    for table in stored_tables_with("username"):
        delete_rows(connection, table, with_staging(_OF_ACCOUNTS), parameters)
    for table in (TOOT_ALIASES, HOME_IDS):
        delete_rows(connection, table, sql.SQL(_ALIASES_OF_SERVERS), parameters)
    _delete_rejected(connection, rejected)
    return counts


def _stage_usernames(connection: Connection[Any], usernames: Sequence[str]) -> None:
    PURGED_USERNAMES.create(connection)
    connection.execute(with_staging("TRUNCATE {purged_usernames}"))
    connection.execute(
        with_staging("INSERT INTO {purged_usernames} SELECT unnest(%s::text[])"), (usernames,)
    )
    connection.execute(with_staging("ANALYZE {purged_usernames}"))


def _count_sums(connection: Connection[Any], parameters: Mapping[str, Any]) -> dict[str, int]:
    """Count the windows, and sums of users, that go with the posts found."""
    counts = {}
    for sums in _SUMS:
        is_by_user = "username" in sums.table.key
        query = sql.SQL(_COUNT_EMPTIED).format(
            table=sums.sum_table.identifier,
            removed=sums.query(_FOUND),
            keys=names_of(sums.table.key),
            is_of_account=with_staging(_OF_ACCOUNTS if is_by_user else "false"),
        )
        counts[sums.table.name] = _count(connection, query, parameters)
    return counts


def _count_by_post(connection: Connection[Any], parameters: Mapping[str, Any]) -> dict[str, int]:
    """Count the rows that belong to one of the posts found, and the aliases of servers."""
    counts = {}
    for table in tables_by_post():
        query = with_staging(
            "SELECT count(*) FROM {table} WHERE id IN (SELECT id FROM {posts_to_remove})",
            table=sql.Identifier(SCHEMA, table.name),
        )
        if table == TOOT_ALIASES:
            query = with_staging(_COUNT_ALIASES, of_servers=sql.SQL(_ALIASES_OF_SERVERS))
        counts[table.name] = _count(connection, query, parameters)
    return counts


def _count(connection: Connection[Any], query: sql.Composed, parameters: Mapping[str, Any]) -> int:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return int(row[0])


def _names(
    connection: Connection[Any], column: str, is_suppressed: Callable[[str], bool]
) -> list[str]:
    """List the values of `column` in any table that are suppressed."""
    query = sql.SQL(" UNION ").join(
        sql.SQL("SELECT {} FROM {}").format(
            sql.Identifier(column), sql.Identifier(SCHEMA, table.name)
        )
        for table in (TOOTS_RAW, *stored_tables_with(column))
    )
    return [name for (name,) in connection.execute(query) if is_suppressed(name)]


def _usernames_by_server(connection: Connection[Any], suppressed: SuppressionList) -> set[str]:
    """Return the authors whom the list has under the host of their uris."""
    pairs = connection.execute(
        "SELECT DISTINCT username, substring(uri from '^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+')"
        " FROM masto.toots_raw"
    )
    return {username for username, server in pairs if suppressed.matches(username, None, server)}


def _find_rejected(
    connection: Connection[Any], suppressed: SuppressionList
) -> list[tuple[str, int, int]]:
    with connection.cursor(name="rejected") as dead_letters:
        dead_letters.execute(
            "SELECT topic, partition, kafka_offset, payload FROM masto.toots_rejected"
        )
        return [
            (topic, partition, offset)
            for topic, partition, offset, payload in dead_letters
            if suppressed.matches_record(payload)
        ]


def _delete_rejected(
    connection: Connection[Any], positions: Sequence[tuple[str, int, int]]
) -> None:
    def delete(first: int, last: int) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(
                "DELETE FROM masto.toots_rejected"
                " WHERE (topic, partition, kafka_offset) = (%s, %s, %s)",
                positions[first:last],
            )

    write_ranges(connection, len(positions), delete)
