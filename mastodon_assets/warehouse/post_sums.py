"""Sums of posts per user, hashtag, hour, day and language: what the batch tables contain.

What belongs here: updating the sums in each transaction that changes posts, and correcting them if
they differ from the posts. A change adds what a row is and subtracts what it was, so a transaction
costs what it changes. Sums are integers and do not depend on the order of changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import REBUILD_LOCK, take_write_lock
from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.staging import ROW_CHANGES
from mastodon_assets.warehouse.tables import (
    BATCH_HASHTAG_BY_HOUR,
    BATCH_TOOTS_BY_LANG_PER_DAY,
    BATCH_TOOTS_PER_DAY,
    DAY_TOTALS,
    HASHTAG_TOTALS,
    SCHEMA,
    USER_TOTALS,
    Table,
)
from mastodon_assets.warehouse.watermarks import toots_version

if TYPE_CHECKING:
    import pyarrow as pa

# Keys corrected per transaction, so that writers wait a fraction of a second at most.
_KEYS_PER_CHUNK = 5_000


@dataclass(frozen=True)
class PostSums:
    """A table of sums: its columns are a key, `toots_count` and perhaps `total_length`.

    `keys` are the expressions of the key's columns; `hashtag` means one row per hashtag.
    """

    table: Table
    keys: LiteralString
    has_length: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The key, then the sums."""
        sums = ("toots_count", "total_length") if self.has_length else ("toots_count",)
        return (*self.table.key, *sums)

    def query(self, rows: sql.Composable) -> sql.Composed:
        """Return the SELECT of the sums of `rows`.

        Args:
            rows: Table or subquery: sign, event_at, lang, username, hashtags, length.
        """
        return sql.SQL(
            "SELECT {keys}, sum(sign)::bigint AS toots_count{length} FROM {rows}{hashtags}"
            " GROUP BY {places}"
        ).format(
            keys=sql.SQL(self.keys),
            length=sql.SQL(
                ", sum(sign * length)::bigint AS total_length" if self.has_length else ""
            ),
            rows=rows,
            hashtags=sql.SQL(
                ", unnest(hashtags) AS hashtag" if "hashtag" in self.table.key else ""
            ),
            places=sql.SQL(", ").join(
                sql.Literal(place + 1) for place in range(len(self.table.key))
            ),
        )


_DAY = "(event_at AT TIME ZONE 'UTC')::date AS day"
POST_SUMS = (
    PostSums(USER_TOTALS, "username", has_length=True),
    PostSums(HASHTAG_TOTALS, "hashtag"),
    PostSums(BATCH_HASHTAG_BY_HOUR, "date_trunc('hour', event_at, 'UTC') AS hour, hashtag"),
    PostSums(DAY_TOTALS, _DAY, has_length=True),
    PostSums(BATCH_TOOTS_PER_DAY, _DAY),
    PostSums(BATCH_TOOTS_BY_LANG_PER_DAY, f"{_DAY}, lang"),
)

ALL_POSTS = sql.SQL(
    "(SELECT 1 AS sign, event_at, lang, username, hashtags, char_length(content_txt) AS length"
    "   FROM masto.toots_raw) posts"
)

_ADD = """
MERGE INTO {table} t USING (SELECT * FROM ({sums}) summed WHERE {is_change}) c ON {same_key}
 WHEN MATCHED AND t.toots_count + c.toots_count = 0 THEN DELETE
 WHEN MATCHED THEN UPDATE SET {updates}
 WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})
"""

_COMPUTED = sql.Identifier("pg_temp", "computed_sums")
_CREATE_COMPUTED = sql.SQL("CREATE TEMP TABLE computed_sums AS SELECT {} FROM {} WITH NO DATA")
_FIND_DIFFERENCES = """
CREATE TEMP TABLE sum_differences AS
SELECT row_number() OVER () - 1 AS place, {keys}, {differences}
  FROM pg_temp.computed_sums computed FULL JOIN {table} stored USING ({keys})
 WHERE ({computed}) IS DISTINCT FROM ({stored})
"""
_CHUNK_OF_DIFFERENCES = sql.SQL(
    "SELECT {} FROM pg_temp.sum_differences WHERE place >= {} AND place < {}"
)


def prepare_sums(connection: Connection[Any]) -> None:
    """Create the staging tables of `add_posts`, once per session."""
    for sums in POST_SUMS:
        connection.execute(
            sql.SQL(
                "CREATE TEMP TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS"
                " SELECT {} FROM {} WITH NO DATA"
            ).format(
                sql.Identifier(f"added_{sums.table.name}"),
                _names(sums.columns),
                _table_name(sums),
            )
        )


def apply_changes(connection: Connection[Any], version: int) -> None:
    """Update the sums by the staging table `row_changes`.

    Args:
        connection: A transaction that holds the write lock.
        version: The version of the posts after the change.
    """
    for statement in _ADD_CHANGES:
        connection.execute(statement, {"version": version})


def add_posts(connection: Connection[Any], posts: "pa.Table", version: int) -> None:
    """Update the sums by new posts, as `apply_changes` would.

    Args:
        connection: A transaction that holds the write lock.
        posts: Columns event_at, lang, username, hashtags, length (characters).
        version: The version of the posts after the change.
    """
    for sums, added in zip(POST_SUMS, _sums_of(posts), strict=True):
        # Sorted by key, the merge visits each page of table and index once.
        in_order = added.sort_by([(name, "ascending") for name in sums.table.key])
        copy_arrow(connection, _staged(sums), in_order.select(list(sums.columns)))
        connection.execute(_ADD_STAGED[sums.table.name], {"version": version})


def _sums_of(posts: "pa.Table") -> "Iterator[pa.Table]":
    """Yield the sums of new posts, in the order of `POST_SUMS`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    posts = posts.append_column("day", posts.column("event_at").cast(pa.date32()))
    hashtags = posts.column("hashtags").combine_chunks()
    uses = pa.table(
        {
            "hashtag": hashtags.flatten(),
            "hour": pc.floor_temporal(posts.column("event_at"), unit="hour").take(
                pc.list_parent_indices(hashtags)
            ),
        }
    )
    for sums in POST_SUMS:
        rows = uses if "hashtag" in sums.table.key else posts
        keys = list(sums.table.key)
        measures = [("length", "sum")] if sums.has_length else []
        summed = rows.group_by(keys).aggregate([([], "count_all"), *measures])
        named = {"count_all": "toots_count", "length_sum": "total_length"}
        yield summed.rename_columns([named.get(name, name) for name in summed.column_names])


def correct_sums(
    postgres_url: SecretStr, sums: PostSums, of_all: "Callable[[Connection[Any]], pa.Table]"
) -> int:
    """Correct a table of sums by those computed from all posts; return the rows corrected.

    The difference is taken in one snapshot and added later, in chunks, so writers go on meanwhile.
    If it is interrupted, the next call corrects the rest.

    Args:
        postgres_url: DATABASE_URL.
        sums: The table.
        of_all: Computes the sums of all posts in the connection's snapshot; columns as in `sums`.
    """
    with transaction(postgres_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (REBUILD_LOCK,))
        connection.execute(_CREATE_COMPUTED.format(_names(sums.columns), _table_name(sums)))
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        copy_arrow(connection, _COMPUTED, of_all(connection))
        differing = connection.execute(_differences(sums)).rowcount
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        corrected = 0
        for start in range(0, differing, _KEYS_PER_CHUNK):
            take_write_lock(connection)
            chunk = _CHUNK_OF_DIFFERENCES.format(
                _names(sums.columns), sql.Literal(start), sql.Literal(start + _KEYS_PER_CHUNK)
            )
            corrected += _add(connection, sums, chunk, toots_version(connection))
            connection.commit()
        return corrected


def _differences(sums: PostSums) -> sql.Composed:
    measures = sums.columns[len(sums.table.key) :]
    return sql.SQL(_FIND_DIFFERENCES).format(
        keys=_names(sums.table.key),
        differences=sql.SQL(", ").join(
            sql.SQL("coalesce({0}, 0) - coalesce({1}, 0) AS {2}").format(
                _name("computed", name), _name("stored", name), sql.Identifier(name)
            )
            for name in measures
        ),
        table=_table_name(sums),
        computed=sql.SQL(", ").join(_name("computed", name) for name in measures),
        stored=sql.SQL(", ").join(_name("stored", name) for name in measures),
    )


def _table_name(sums: PostSums) -> sql.Identifier:
    return sql.Identifier(SCHEMA, sums.table.name)


def _add(connection: Connection[Any], sums: PostSums, query: sql.Composed, version: int) -> int:
    """Add the sums of `query` to the table; return the number of rows changed."""
    return connection.execute(_compose_add(sums, query), {"version": version}).rowcount


def _compose_add(sums: PostSums, query: sql.Composed) -> sql.Composed:
    measures = sums.columns[len(sums.table.key) :]
    updates: list[sql.Composable] = [
        sql.SQL("{0} = t.{0} + c.{0}").format(sql.Identifier(name)) for name in measures
    ]
    columns = list(sums.columns)
    values: list[sql.Composable] = [_name("c", name) for name in sums.columns]
    is_change = sql.SQL(" OR ").join(
        sql.SQL("{} <> 0").format(sql.Identifier(name)) for name in measures
    )
    if "toots_version" in sums.table.column_names:
        # An edit that leaves the sums as they are may still change the labels of the day.
        is_change = sql.Composed([sql.SQL("true")])
        updates.append(sql.SQL("toots_version = %(version)s"))
        columns.append("toots_version")
        values.append(sql.SQL("%(version)s"))
    return sql.SQL(_ADD).format(
        table=_table_name(sums),
        sums=query,
        is_change=is_change,
        same_key=_same_key(sums.table, "t", "c"),
        updates=sql.SQL(", ").join(updates),
        columns=_names(columns),
        values=sql.SQL(", ").join(values),
    )


def _staged(sums: PostSums) -> sql.Identifier:
    return sql.Identifier("pg_temp", f"added_{sums.table.name}")


def _same_key(table: Table, one: str, other: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(_name(one, name), _name(other, name)) for name in table.key
    )


def _name(alias: str, name: str) -> sql.Identifier:
    return sql.Identifier(alias, name)


def _names(names: Any) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


_ADD_STAGED = {
    sums.table.name: _compose_add(sums, sql.SQL("SELECT * FROM {}").format(_staged(sums)))
    for sums in POST_SUMS
}
_ADD_CHANGES = [_compose_add(sums, sums.query(ROW_CHANGES.identifier)) for sums in POST_SUMS]
