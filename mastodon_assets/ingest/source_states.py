"""The table `masto.ingest_sources`: the last known state of each source, shown by `status`.

What belongs here: reading and writing the records. States are decided in `source_worker`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg.rows import class_row
from pydantic import SecretStr

from mastodon_assets.warehouse.database import FEED_SECONDS, PERSON_SECONDS, transaction

StateName = Literal["connected", "silent", "disconnected", "refused", "paused", "stopped"]

# The ingester records every 15 seconds; for a source that cannot start, at every attempt.
_LONGEST_WITHOUT_RECORD = timedelta(minutes=1)
_LONGEST_BETWEEN_STARTS = timedelta(minutes=16)


@dataclass(frozen=True)
class SourceState:
    """What a source does now.

    `paused` means that Kafka takes nothing. `longest_pause` is the longest time between two of the
    latest posts.
    """

    name: StateName
    detail: str | None
    last_event_at: datetime | None
    last_post_at: datetime | None
    longest_pause: timedelta | None


@dataclass(frozen=True)
class SourceStatus:
    """One source as `status` shows it; `told_at` is when the state was recorded, in UTC.

    `suspicious` says why removals wait for a person; None if they do not. `incomplete_gaps` are
    those of the last seven days that are closed, and were not filled completely.
    """

    instance: str
    source: str
    state: str
    detail: str | None
    told_at: datetime
    last_event_at: datetime | None
    last_post_at: datetime | None
    cursor: str | None
    open_gaps: int
    suspicious: str | None = None
    incomplete_gaps: int = 0

    def present_state(self, now: datetime) -> str:
        """Return the state, or `not running` if the ingester ended without recording it."""
        if self.state == "stopped":
            return self.state
        is_waiting = self.state in ("refused", "disconnected")
        longest = _LONGEST_BETWEEN_STARTS if is_waiting else _LONGEST_WITHOUT_RECORD
        return "not running" if now - self.told_at > longest else self.state


def save_state(postgres_url: SecretStr, instance: str, source: str, state: SourceState) -> None:
    """Record the present state of a source.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    pause = state.longest_pause
    with transaction(postgres_url, max_seconds=FEED_SECONDS) as connection:
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


def claim_address(
    postgres_url: SecretStr, instance: str, source: str, address: str, *, is_accepted: bool
) -> str | None:
    """Record that a source is read at an address, unless it was another server before.

    Args:
        postgres_url: The database.
        instance: The server that answers at the address.
        source: The name of the source.
        address: The host in the settings.
        is_accepted: Whether a person accepted the new server.

    Returns:
        The server that was read there before, if it is another one; then nothing is recorded.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        others = connection.execute(
            "SELECT instance FROM masto.ingest_sources"
            " WHERE address = %s AND source = %s AND instance <> %s ORDER BY told_at DESC",
            (address, source, instance),
        ).fetchall()
        if others and not is_accepted:
            return str(others[0][0])
        connection.execute(
            "UPDATE masto.ingest_sources SET address = NULL"
            " WHERE address = %s AND source = %s AND instance <> %s",
            (address, source, instance),
        )
        connection.execute(
            """
            INSERT INTO masto.ingest_sources (instance, source, state, address)
            VALUES (%s, %s, 'stopped', %s)
            ON CONFLICT (instance, source) DO UPDATE SET address = excluded.address
            """,
            (instance, source, address),
        )
    return None


def read_state(postgres_url: SecretStr, instance: str, source: str) -> SourceState | None:
    """Return the last recorded state, or None if the source was never read.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
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
    """Return all sources that were ever read, ordered by server and name.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with (
        transaction(postgres_url, snapshot=True, max_seconds=PERSON_SECONDS) as connection,
        connection.cursor(row_factory=class_row(SourceStatus)) as cursor,
    ):
        return cursor.execute(
            """
            SELECT s.instance, s.source, s.state, s.detail, s.told_at, s.last_event_at,
                   s.last_post_at, c.last_acked_id AS cursor,
                   (SELECT count(*) FROM masto.stream_gaps g
                     WHERE g.instance = s.instance AND g.source = s.source
                       AND g.status = 'open') AS open_gaps,
                   (SELECT u.reason FROM masto.suspicious_sources u
                     WHERE u.instance = s.instance AND u.accepted_until IS NULL) AS suspicious,
                   (SELECT count(*) FROM masto.stream_gaps g
                     WHERE g.instance = s.instance AND g.source = s.source
                       AND g.started_at > now() - interval '7 days'
                       AND g.status IN ('partial', 'unrecoverable')) AS incomplete_gaps
              FROM masto.ingest_sources s
              LEFT JOIN masto.ingest_cursors c USING (instance, source)
             ORDER BY s.instance, s.source
            """
        ).fetchall()
