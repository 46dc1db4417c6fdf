"""Tables of sums: adding changes to them, and correcting what differs.

What belongs here: the two operations on any table whose columns are a key and sums. What the sums
are is in `post_sums`, `rollups` and `stream.windows`. Sums are exact numbers and do not depend on
the order of changes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.database import snapshot_of
from mastodon_assets.warehouse.horizons import with_horizons
from mastodon_assets.warehouse.locks import REBUILD_LOCK, write_ranges
from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.tables import SCHEMA, Table
from mastodon_assets.warehouse.watermarks import toots_version

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SumTable:
    """A table whose columns are its key, `toots_count` and other sums, and derived ones.

    Attributes:
        table: The table.
        other_sums: The sums besides `toots_count`.
        derived: Column to expression, of the changed row `c` and the parameter `version`.
        compared: Condition of the stored rows that a correction compares; the others are frozen.
        frozen: SELECT of the sums whose posts were removed by retention, if rows contain them.
    """

    table: Table
    other_sums: tuple[str, ...] = ()
    derived: Mapping[str, LiteralString] = field(default_factory=dict)
    compared: LiteralString = "true"
    frozen: LiteralString | None = None

    @property
    def sums(self) -> tuple[str, ...]:
        """The columns that are sums."""
        return ("toots_count", *self.other_sums)

    @property
    def columns(self) -> tuple[str, ...]:
        """The key, then the sums."""
        return (*self.table.key, *self.sums)

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in statements."""
        return sql.Identifier(SCHEMA, self.table.name)

    def adding(self, changes: sql.Composable) -> sql.Composed:
        """Return the statement that adds `changes`; a row whose count becomes 0 is removed.

        Args:
            changes: SELECT or table of `columns`, one row per key, negative for what is subtracted.
        """
        # A derived column changes even if the sums stay as they are.
        is_change = (
            sql.SQL("true")
            if "toots_version" in self.derived
            else sql.SQL(" OR ").join(
                sql.SQL("{} <> 0").format(sql.Identifier(name)) for name in self.sums
            )
        )
        derived = {name: sql.SQL(value) for name, value in self.derived.items()}
        updates = [sql.SQL("{0} = t.{0} + c.{0}").format(sql.Identifier(n)) for n in self.sums]
        updates += [
            sql.SQL("{} = {}").format(sql.Identifier(name), value)
            for name, value in derived.items()
        ]
        return sql.SQL(_ADD).format(
            table=self.identifier,
            changes=changes,
            is_change=is_change,
            same_key=sql.SQL(" AND ").join(
                sql.SQL("t.{0} = c.{0}").format(sql.Identifier(name)) for name in self.table.key
            ),
            updates=sql.SQL(", ").join(updates),
            columns=names_of((*self.columns, *derived)),
            values=sql.SQL(", ").join(
                [*(sql.Identifier("c", name) for name in self.columns), *derived.values()]
            ),
        )


_ADD = """
MERGE INTO {table} t USING (SELECT * FROM {changes} WHERE {is_change}) c ON {same_key}
 WHEN MATCHED AND t.toots_count + c.toots_count = 0 THEN DELETE
 WHEN MATCHED THEN UPDATE SET {updates}
 WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})
"""

_COMPUTED = sql.Identifier("pg_temp", "computed_sums")
_FORGET = "DROP TABLE IF EXISTS pg_temp.computed_sums, pg_temp.sum_differences"
_CREATE_COMPUTED = sql.SQL("CREATE TEMP TABLE computed_sums AS SELECT {} FROM {} WITH NO DATA")
_FIND_DIFFERENCES = """
CREATE TEMP TABLE sum_differences AS
SELECT row_number() OVER () - 1 AS place, {keys}, {differences}
  FROM (SELECT {keys}, {summed} FROM pg_temp.computed_sums GROUP BY {keys}) computed
  FULL JOIN (SELECT * FROM {table} WHERE {compared}) stored USING ({keys})
 WHERE ({computed}) IS DISTINCT FROM ({stored})
"""
_CHUNK = sql.SQL(
    "(SELECT * FROM pg_temp.sum_differences WHERE place >= {} AND place < {}) differing"
)


def correct_sums(
    connection: Connection[Any],
    sums: SumTable,
    compute: "Callable[[Connection[Any]], Iterable[pa.Table] | sql.Composed]",
) -> int:
    """Correct a table of sums by those computed from all posts; return the rows corrected.

    The difference is taken in one snapshot and added later, in chunks, so writers go on meanwhile.
    If it is interrupted, the next call corrects the rest.

    Args:
        connection: A connection; what it has written is committed first.
        sums: The table.
        compute: Computes the sums of all posts in the connection's snapshot: Arrow tables or a
            SELECT, with the columns of `sums`.
    """
    connection.commit()
    with _one_correction(connection):
        connection.execute(_FORGET)
        connection.execute(_CREATE_COMPUTED.format(names_of(sums.columns), sums.identifier))
        connection.commit()
        with snapshot_of(connection):
            computed = compute(connection)
            if isinstance(computed, sql.Composed):
                _insert_computed(connection, sums, computed)
            else:
                for rows in computed:
                    copy_arrow(connection, _COMPUTED, rows)
            if sums.frozen is not None:
                _insert_computed(connection, sums, with_horizons(sums.frozen))
            differing = connection.execute(_differences(sums)).rowcount
        return _add_differences(connection, sums, differing)


def names_of(names: Any) -> sql.Composed:
    """Return names for a list of columns."""
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _insert_computed(connection: Connection[Any], sums: SumTable, query: sql.Composed) -> None:
    connection.execute(
        sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM ({2}) computed").format(
            _COMPUTED, names_of(sums.columns), query
        )
    )


def _add_differences(connection: Connection[Any], sums: SumTable, differing: int) -> int:
    corrected = 0

    def add(first: int, last: int) -> None:
        nonlocal corrected
        chunk = _CHUNK.format(sql.Literal(first), sql.Literal(last))
        parameters = {"version": toots_version(connection)}
        corrected += connection.execute(sums.adding(chunk), parameters).rowcount

    write_ranges(connection, differing, add)
    return corrected


@contextmanager
def _one_correction(connection: Connection[Any]) -> Iterator[None]:
    """Let one correction run at a time: two would each add the same difference."""
    connection.execute("SELECT pg_advisory_lock(%s)", (REBUILD_LOCK,))
    try:
        yield
    finally:
        if not connection.broken:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s)", (REBUILD_LOCK,))
            connection.commit()


def _differences(sums: SumTable) -> sql.Composed:
    names = [sql.Identifier(name) for name in sums.sums]
    return sql.SQL(_FIND_DIFFERENCES).format(
        keys=names_of(sums.table.key),
        differences=sql.SQL(", ").join(
            sql.SQL("coalesce({0}, 0) - coalesce({1}, 0) AS {2}").format(
                sql.Identifier("computed", name),
                sql.Identifier("stored", name),
                sql.Identifier(name),
            )
            for name in sums.sums
        ),
        summed=sql.SQL(", ").join(sql.SQL("sum({0}) AS {0}").format(name) for name in names),
        table=sums.identifier,
        compared=with_horizons(sums.compared),
        computed=sql.SQL(", ").join(sql.Identifier("computed", name) for name in sums.sums),
        stored=sql.SQL(", ").join(sql.Identifier("stored", name) for name in sums.sums),
    )
