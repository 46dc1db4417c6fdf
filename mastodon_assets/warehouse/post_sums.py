"""Sums of posts per user, hashtag, hour, day and language: what the batch tables contain.

What belongs here: what the sums are, and updating them in each transaction that changes posts. A
change adds what a row is and subtracts what it was, so a transaction costs what it changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.horizons import with_horizons
from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.staging import ROW_CHANGES
from mastodon_assets.warehouse.sum_tables import SumTable, names_of
from mastodon_assets.warehouse.tables import (
    BATCH_HASHTAG_BY_HOUR,
    BATCH_TOOTS_BY_LANG_PER_DAY,
    BATCH_TOOTS_PER_DAY,
    DAY_TOTALS,
    HASHTAG_TOTALS,
    USER_TOTALS,
    Table,
)

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PostSums:
    """Numbers of posts, and perhaps their total length, per key.

    Attributes:
        table: Its columns are the key, `toots_count`, perhaps `total_length`, and derived ones.
        keys: The expressions of the key's columns; `hashtag` means one row per hashtag.
        has_length: Whether there is a `total_length`.
        counted: Condition of the posts whose changes count; the others' sums are frozen.
        derived, compared, frozen: See `SumTable`.
    """

    table: Table
    keys: LiteralString
    has_length: bool = False
    derived: Mapping[str, LiteralString] = field(default_factory=dict)
    counted: LiteralString = "true"
    compared: LiteralString = "true"
    frozen: LiteralString | None = None

    @property
    def sum_table(self) -> SumTable:
        """The table of these sums."""
        other_sums = ("total_length",) if self.has_length else ()
        return SumTable(self.table, other_sums, self.derived, self.compared, self.frozen)

    def query(self, rows: sql.Composable) -> sql.Composed:
        """Return the SELECT of the sums of `rows`.

        Args:
            rows: Table or subquery: sign, event_at, lang, username, hashtags, length.
        """
        return sql.SQL(
            "SELECT {keys}, sum(sign)::bigint AS toots_count{length} FROM {rows}{hashtags}"
            " WHERE {counted} GROUP BY {places}"
        ).format(
            keys=sql.SQL(self.keys),
            length=sql.SQL(
                ", sum(sign * length)::bigint AS total_length" if self.has_length else ""
            ),
            rows=rows,
            counted=with_horizons(self.counted),
            hashtags=sql.SQL(
                ", unnest(hashtags) AS hashtag" if "hashtag" in self.table.key else ""
            ),
            places=sql.SQL(", ").join(
                sql.Literal(place + 1) for place in range(len(self.table.key))
            ),
        )

    def adding_changes(self) -> sql.Composed:
        """Return the statement that updates the sums by the staging table `row_changes`."""
        changes = sql.SQL("({}) summed").format(self.query(ROW_CHANGES.identifier))
        return self.sum_table.adding(changes)


_DAY = "(event_at AT TIME ZONE 'UTC')::date AS day"
_IS_KEPT: LiteralString = "event_at >= {posts_since}"
_IS_KEPT_DAY: LiteralString = "day >= {posts_day}"
POST_SUMS = (
    # Names persons: what retention removes is subtracted.
    PostSums(USER_TOTALS, "username", has_length=True),
    PostSums(
        HASHTAG_TOTALS,
        "hashtag",
        counted=_IS_KEPT,
        frozen="SELECT hashtag, sum(toots_count)::bigint AS toots_count"
        " FROM masto.batch_hashtag_by_hour WHERE hour < {posts_since} GROUP BY 1",
    ),
    PostSums(
        BATCH_HASHTAG_BY_HOUR,
        "date_trunc('hour', event_at, 'UTC') AS hour, hashtag",
        counted=_IS_KEPT,
        compared="hour >= {posts_since}",
    ),
    PostSums(
        DAY_TOTALS,
        _DAY,
        has_length=True,
        derived={"toots_version": "%(version)s"},
        counted=_IS_KEPT,
        compared=_IS_KEPT_DAY,
    ),
    PostSums(BATCH_TOOTS_PER_DAY, _DAY, counted=_IS_KEPT, compared=_IS_KEPT_DAY),
    PostSums(BATCH_TOOTS_BY_LANG_PER_DAY, f"{_DAY}, lang", counted=_IS_KEPT, compared=_IS_KEPT_DAY),
)


def counted_rows(posts: sql.Composable) -> sql.Composed:
    """Return the subquery of posts as `PostSums.query` counts them, from `toots_raw` or a join."""
    return sql.SQL(
        "(SELECT 1 AS sign, event_at, lang, username, hashtags, char_length(content_txt) AS length"
        "   FROM {}) posts"
    ).format(posts)


ALL_POSTS = counted_rows(sql.SQL("masto.toots_raw"))


def prepare_sums(connection: Connection[Any]) -> None:
    """Create the staging tables of `add_posts`, once per session."""
    for sums in POST_SUMS:
        connection.execute(
            sql.SQL(
                "CREATE TEMP TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS"
                " SELECT {} FROM {} WITH NO DATA"
            ).format(
                sql.Identifier(f"added_{sums.table.name}"),
                names_of(sums.sum_table.columns),
                sums.sum_table.identifier,
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
        copy_arrow(connection, _staged(sums), in_order.select(list(sums.sum_table.columns)))
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


def _staged(sums: PostSums) -> sql.Identifier:
    return sql.Identifier("pg_temp", f"added_{sums.table.name}")


_ADD_STAGED = {sums.table.name: sums.sum_table.adding(_staged(sums)) for sums in POST_SUMS}
_ADD_CHANGES = [sums.adding_changes() for sums in POST_SUMS]
