"""The daily sums of hourly tables, for views that show a year.

What belongs here: which sums there are, how they follow the hours, and their rebuild. They change
in the transaction that changes the hours, by what it changes, so they are always the sum of all
hours, also of those before the horizon of posts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.sum_tables import SumTable, correct_sums, names_of
from mastodon_assets.warehouse.tables import (
    DAILY_HASHTAGS,
    DAILY_SENTIMENT,
    HOURLY_HASHTAGS,
    HOURLY_SENTIMENT,
    SCHEMA,
    Table,
)

_DAY: LiteralString = "(hour AT TIME ZONE 'UTC')::date"
_ALL = "SELECT {day} AS day, {names}, {sums} FROM {hourly} GROUP BY {day}, {names}"
# A row that is new has no stored values, and one that is gone no others.
_CHANGES = """
(SELECT {day} AS day, {names}, {sums}
   FROM {changes} changed LEFT JOIN {hourly} stored USING ({hourly_key})
  WHERE place >= %(first)s AND place < %(last)s
  GROUP BY {day}, {names}) summed
"""
_DIFFERING = """
SELECT DISTINCT day::timestamp AT TIME ZONE 'UTC' AS day
  FROM (SELECT {day} AS day, {names}, {sums} FROM {hourly}
         WHERE hour = ANY(SELECT day + n * interval '1 hour'
                            FROM unnest(%(days)s::timestamptz[]) day, generate_series(0, 23) n)
         GROUP BY {day}, {names}) computed
  FULL JOIN (SELECT * FROM {table}
              WHERE day IN (SELECT (day AT TIME ZONE 'UTC')::date
                              FROM unnest(%(days)s::timestamptz[]) day)) stored
 USING (day, {names})
 WHERE ({computed}) IS DISTINCT FROM ({stored}) ORDER BY day
"""


@dataclass(frozen=True)
class DailySums:
    """A table of daily sums, and the hourly table that it sums up."""

    sums: SumTable
    hourly: Table

    def adding(self, changes: sql.Composable) -> sql.Composed:
        """Return the statement that adds staged changes of the hourly table before their writing.

        Args:
            changes: The staged rows, numbered by `place`; %(first)s and %(last)s select from them.
        """
        sums = [
            sql.SQL("sum(coalesce(changed.{0}, 0) - coalesce(stored.{0}, 0)) AS {0}").format(
                sql.Identifier(name)
            )
            for name in self.sums.sums
        ]
        key = names_of(self.hourly.key)
        return self.sums.adding(self._statement(_CHANGES, sums, changes=changes, hourly_key=key))

    def of_all_hours(self) -> sql.Composed:
        """Return the SELECT of the sums of all hours."""
        return self._statement(_ALL, self._summed())

    def differing(self) -> sql.Composed:
        """Return the SELECT of those of %(days)s whose sums are not those of their hours."""
        return self._statement(
            _DIFFERING,
            self._summed(),
            table=self.sums.identifier,
            **{
                part: sql.SQL(", ").join(sql.Identifier(part, name) for name in self.sums.sums)
                for part in ("computed", "stored")
            },
        )

    def _summed(self) -> list[sql.Composed]:
        return [sql.SQL("sum({0}) AS {0}").format(sql.Identifier(name)) for name in self.sums.sums]

    def _statement(
        self, statement: LiteralString, sums: Sequence[sql.Composable], **parts: sql.Composable
    ) -> sql.Composed:
        return sql.SQL(statement).format(
            day=sql.SQL(_DAY),
            names=names_of(name for name in self.sums.table.key if name != "day"),
            sums=sql.SQL(", ").join(sums),
            hourly=sql.Identifier(SCHEMA, self.hourly.name),
            **parts,
        )


DAILY_SUMS = (
    DailySums(SumTable(DAILY_SENTIMENT, ("total_prob_pos",)), HOURLY_SENTIMENT),
    DailySums(SumTable(DAILY_HASHTAGS, ("n_pos", "n_neu", "n_neg")), HOURLY_HASHTAGS),
)


def rebuild_daily(connection: Connection[Any], table: Table) -> int:
    """Compute the sums of all days again; return the rows that differed.

    Args:
        connection: A connection; what it has written is committed first.
        table: One of `tables.DAILY`.
    """
    (daily,) = (each for each in DAILY_SUMS if each.sums.table == table)
    return correct_sums(connection, daily.sums, lambda _: daily.of_all_hours())


def days_that_differ(
    connection: Connection[Any], days: Sequence[datetime]
) -> dict[str, list[datetime]]:
    """Compare the sums of days with their hours, in the connection's snapshot.

    Args:
        connection: A transaction.
        days: Beginnings of the days to compare, UTC.

    Returns:
        Table to its days that differ, without tables that have none.
    """
    found = {
        daily.sums.table.name: [
            day for (day,) in connection.execute(daily.differing(), {"days": list(days)})
        ]
        for daily in DAILY_SUMS
    }
    return {name: differing for name, differing in found.items() if differing}
