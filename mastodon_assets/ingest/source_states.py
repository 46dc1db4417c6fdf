"""What each source was last seen to do: `masto.ingest_sources`, written by `ingest`, for `status`.

What belongs here: the record. What a source is seen to do is decided in `source_run`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg.rows import class_row
from pydantic import SecretStr

from mastodon_assets.warehouse.database import transaction

StateName = Literal["connected", "silent", "disconnected", "refused", "paused", "stopped"]

# The ingester tells every fifteen seconds; a source that cannot be begun, whenever that is tried.
_LONGEST_WITHOUT_WORD = timedelta(minutes=1)
_LONGEST_BETWEEN_STARTS = timedelta(minutes=16)


@dataclass(frozen=True)
class SourceState:
    """`paused` is while Kafka takes nothing; `longest_pause` lies between two of the last posts."""

    name: StateName
    detail: str | None
    last_event_at: datetime | None
    last_post_at: datetime | None
    longest_pause: timedelta | None


@dataclass(frozen=True)
class SourceStatus:
    """A source as `status` shows it; times in UTC, `open_gaps` counted."""

    instance: str
    source: str
    state: str
    detail: str | None
    told_at: datetime
    last_event_at: datetime | None
    last_post_at: datetime | None
    cursor: str | None
    open_gaps: int

    def present_state(self, now: datetime) -> str:
        """`state`, or `not running` where the ingester ended without a word."""
        if self.state == "stopped":
            return self.state
        is_waiting = self.state in ("refused", "disconnected")
        longest = _LONGEST_BETWEEN_STARTS if is_waiting else _LONGEST_WITHOUT_WORD
        return "not running" if now - self.told_at > longest else self.state


def save_state(postgres_url: SecretStr, instance: str, source: str, state: SourceState) -> None:
    """Record what the source does now.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    pause = state.longest_pause
    with transaction(postgres_url) as connection:
        connection.execute(
            """
            INSERT INTO masto.ingest_sources
                   (instance, source, state, detail, last_event_at, last_post_at,
                    longest_pause_seconds, told_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, now())
            ON CONFLICT (instance, source) DO UPDATE
               SET state = excluded.state, detail = excluded.detail,
                   last_event_at = excluded.last_event_at, last_post_at = excluded.last_post_at,
                   longest_pause_seconds = excluded.longest_pause_seconds,
                   told_at = excluded.told_at
            """,
            (
                instance,
                source,
                state.name,
                state.detail,
                state.last_event_at,
                state.last_post_at,
                None if pause is None else pause.total_seconds(),
            ),
        )


def read_state(postgres_url: SecretStr, instance: str, source: str) -> SourceState | None:
    """What was recorded last; None of a source that was never read.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    with transaction(postgres_url) as connection:
        row: Any = connection.execute(
            """
            SELECT state, detail, last_event_at, last_post_at,
                   longest_pause_seconds * interval '1 second'
              FROM masto.ingest_sources WHERE instance = %s AND source = %s
            """,
            (instance, source),
        ).fetchone()
    return None if row is None else SourceState(*row)


def read_sources(postgres_url: SecretStr) -> list[SourceStatus]:
    """All sources that were ever read, by server and name.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    with (
        transaction(postgres_url, snapshot=True) as connection,
        connection.cursor(row_factory=class_row(SourceStatus)) as cursor,
    ):
        return cursor.execute(
            """
            SELECT s.instance, s.source, s.state, s.detail, s.told_at, s.last_event_at,
                   s.last_post_at, c.last_acked_id AS cursor,
                   (SELECT count(*) FROM masto.stream_gaps g
                     WHERE g.instance = s.instance AND g.source = s.source
                       AND g.status = 'open') AS open_gaps
              FROM masto.ingest_sources s
              LEFT JOIN masto.ingest_cursors c USING (instance, source)
             ORDER BY s.instance, s.source
            """
        ).fetchall()
