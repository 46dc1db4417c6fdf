"""How far a timeline has been read: two functions on `masto.ingest_cursors`."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from mastodon_assets.warehouse.database import transaction


@dataclass(frozen=True)
class Cursor:
    """The newest status id that Kafka has, and when that became known."""

    last_acked_id: str
    updated_at: datetime


def read_cursor(postgres_url: SecretStr, instance: str, source: str) -> Cursor | None:
    """Where the timeline of `source` was left; None at a first start.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    with transaction(postgres_url) as connection:
        row = connection.execute(
            "SELECT last_acked_id, updated_at FROM masto.ingest_cursors"
            " WHERE instance = %s AND source = %s",
            (instance, source),
        ).fetchone()
    return None if row is None else Cursor(*row)


def save_cursor(
    postgres_url: SecretStr, instance: str, source: str, last_acked_id: str, rules: str
) -> None:
    """Move the cursor; call it after Kafka's acknowledgement. `rules` are those of the run.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    with transaction(postgres_url) as connection:
        connection.execute(
            """
            INSERT INTO masto.ingest_cursors (instance, source, last_acked_id, rules, updated_at)
            VALUES (%s, %s, %s, %s, now())
            ON CONFLICT (instance, source) DO UPDATE
               SET last_acked_id = excluded.last_acked_id, rules = excluded.rules,
                   updated_at = excluded.updated_at
            """,
            (instance, source, last_acked_id, rules),
        )
