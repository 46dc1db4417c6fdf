"""The removal of many stored posts, with everything that derives from them, in chunks.

What belongs here: how posts go that no message deletes. Which ones is in `purge` and `retention`.
Every table of the table catalog that has a post's `id` is included, so that a new table is too.
"""

from collections.abc import Collection, Mapping
from typing import Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.stream.merge import prepare_session, remove_staged_posts
from mastodon_assets.warehouse.changed_hours import mark_deletes_of_removed
from mastodon_assets.warehouse.locks import write_in_chunks, write_ranges
from mastodon_assets.warehouse.staging import POSTS_TO_REMOVE, with_staging
from mastodon_assets.warehouse.tables import SCHEMA, TABLES, TOOTS_RAW, Table

_FIND = """
INSERT INTO {posts_to_remove} (place, id)
SELECT row_number() OVER (ORDER BY event_at, id) - 1, id FROM masto.toots_raw WHERE {condition}
"""
# A version that was stored meanwhile may not meet the condition. OFFSET 0 keeps the planner from
# reading all posts for each chunk.
_STAGE_CHUNK = """
INSERT INTO {tombstoned} (id)
SELECT stored.id
  FROM {posts_to_remove} found
 CROSS JOIN LATERAL (SELECT id FROM masto.toots_raw
                      WHERE id = found.id AND ({condition}) OFFSET 0) stored
 WHERE found.place >= {first} AND found.place < {last}
"""
_DELETE = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} t WHERE {condition}{order} LIMIT {most}))
"""


class Removal:
    """Posts that a condition on `toots_raw` selected, in the session's staging table.

    `count` is their number, `removed` how many of them are gone.
    """

    def __init__(
        self,
        connection: Connection[Any],
        condition: LiteralString,
        parameters: Mapping[str, Any],
        *,
        limit: int | None = None,
        kept_tables: Collection[Table] = (),
    ) -> None:
        """Find the posts, the oldest first, without holding up writers.

        Args:
            connection: A connection without a transaction.
            condition: Of a row of `toots_raw`, with named parameters; see `with_staging`.
            parameters: Their values.
            limit: The largest number of posts.
            kept_tables: Tables whose rows of these posts stay.
        """
        self._kept_tables = kept_tables
        self._connection = connection
        self._condition = with_staging(condition)
        self._parameters = parameters
        self.removed = 0
        with connection.transaction():
            prepare_session(connection)
            POSTS_TO_REMOVE.create(connection)
            connection.execute(with_staging("TRUNCATE {posts_to_remove}"))
            find = with_staging(_FIND, condition=self._condition)
            if limit is not None:
                find += sql.SQL(" ORDER BY event_at, id LIMIT {}").format(sql.Literal(limit))
            self.count = connection.execute(find, parameters).rowcount
            connection.execute(with_staging("ANALYZE {posts_to_remove}"))

    def remove(self, *, until: float | None = None) -> bool:
        """Remove the posts; return whether all are gone.

        Args:
            until: See `write_in_chunks`.
        """
        return write_ranges(self._connection, self.count, self._remove_chunk, until=until)

    def _remove_chunk(self, first: int, last: int) -> None:
        stage = with_staging(
            _STAGE_CHUNK,
            condition=self._condition,
            first=sql.Literal(first),
            last=sql.Literal(last),
        )
        self._connection.execute(stage, self._parameters)
        remove_staged_posts(self._connection)
        mark_deletes_of_removed(self._connection)
        for table in (each for each in tables_by_post() if each not in self._kept_tables):
            self._connection.execute(
                with_staging(
                    "DELETE FROM {table} WHERE id IN (SELECT id FROM {tombstoned})",
                    table=sql.Identifier(SCHEMA, table.name),
                )
            )
        self.removed = last


def tables_by_post() -> list[Table]:
    """List the stored tables, besides `toots_raw`, that have a post's `id`."""
    return stored_tables_with("id")


def stored_tables_with(column: str) -> list[Table]:
    """List the stored tables, besides `toots_raw`, that have `column`."""
    return [
        table
        for table in TABLES.values()
        if column in table.column_names and not table.is_view and table != TOOTS_RAW
    ]


def delete_rows(
    connection: Connection[Any],
    table: Table,
    condition: sql.Composable,
    parameters: Mapping[str, Any] | None = None,
    *,
    oldest_by: LiteralString | None = None,
    until: float | None = None,
) -> tuple[int, bool]:
    """Delete the rows of a table that meet a condition, in chunks; the lock only if there are any.

    Args:
        connection: A connection without a transaction.
        table: The table.
        condition: Of a row `t`.
        parameters: Values of its named parameters.
        oldest_by: Column of a time; the oldest rows go first.
        until: See `write_in_chunks`.

    Returns:
        The number of rows deleted, and whether all are gone.
    """
    names = {
        "table": sql.Identifier(SCHEMA, table.name),
        "condition": condition,
        "order": sql.SQL(" ORDER BY {}").format(sql.Identifier(oldest_by))
        if oldest_by
        else sql.SQL(""),
    }
    find = sql.SQL("SELECT FROM {table} t WHERE {condition}{order} LIMIT 1").format(**names)
    with connection.transaction():
        if connection.execute(find, parameters).fetchone() is None:
            return 0, True
    deleted = 0

    def delete_chunk(most: int) -> int:
        nonlocal deleted
        query = sql.SQL(_DELETE).format(most=sql.Literal(most), **names)
        count = connection.execute(query, parameters).rowcount
        deleted += count
        return count

    is_whole = write_in_chunks(connection, delete_chunk, until=until)
    return deleted, is_whole
