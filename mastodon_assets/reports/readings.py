"""Readings: the statements behind a chart or file, and the frame made of their rows.

What belongs here: reading without pandas. Rows that are those of last time need no frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection

Statement = LiteralString | sql.Composed


@dataclass(frozen=True)
class Rows:
    """The rows of a statement, with the names of their columns."""

    columns: Sequence[str]
    values: Sequence[tuple[Any, ...]]

    def as_frame(self) -> pd.DataFrame:
        """Return them as a frame."""
        import pandas as pd

        return pd.DataFrame(self.values, columns=list(self.columns))


@dataclass(frozen=True)
class Reading:
    """Statements, and a function from their frames to the frame of a chart or file.

    Attributes:
        statements: Each with its parameters.
        build: Gets one frame per statement.
    """

    statements: tuple[tuple[Statement, tuple[object, ...]], ...]
    build: Callable[..., pd.DataFrame]

    def __call__(self, connection: Connection[Any]) -> pd.DataFrame:
        """Read the frame."""
        return self.frame(self.rows(connection))

    def rows(self, connection: Connection[Any]) -> list[Rows]:
        """Execute the statements."""
        found = []
        for statement, parameters in self.statements:
            with connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(statement, parameters or None)
                assert cursor.description is not None
                names = [column.name for column in cursor.description]
                found.append(Rows(names, cursor.fetchall()))
        return found

    def frame(self, rows: Sequence[Rows]) -> pd.DataFrame:
        """Build the frame from the rows of `rows`."""
        return self.build(*(each.as_frame() for each in rows))


def reading(
    *statements: Statement | tuple[Statement, tuple[object, ...]],
) -> Callable[[Callable[..., pd.DataFrame]], Reading]:
    """Make a `Reading` of a function from frames to a frame.

    Args:
        *statements: One per argument of the function, with parameters if it has any.
    """
    given = tuple(each if isinstance(each, tuple) else (each, ()) for each in statements)
    return lambda build: Reading(given, build)


def fingerprint(rows: Sequence[Rows]) -> str:
    """Return a hash of the rows' columns and values."""
    return hashlib.sha256(repr(rows).encode()).hexdigest()
