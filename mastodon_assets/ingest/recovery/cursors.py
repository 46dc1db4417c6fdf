"""The table `masto.ingest_cursors`: how far each timeline has been read."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from mastodon_assets.warehouse.database import FEED_SECONDS, PERSON_SECONDS, transaction


@dataclass(frozen=True)
class Cursor:
    """The newest status id that Kafka has acknowledged, and when."""

    last_acked_id: str
    updated_at: datetime


def read_cursor(postgres_url: SecretStr, instance: str, source: str) -> Cursor | None:
    """Return how far `source` was read; None at the first start.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        row = connection.execute(
            "SELECT last_acked_id, updated_at FROM masto.ingest_cursors"
            " WHERE instance = %s AND source = %s",
            (instance, source),
        ).fetchone()
    return None if row is None else Cursor(*row)


def save_cursor(
    postgres_url: SecretStr, instance: str, source: str, last_acked_id: str, rules: str
) -> None:
    """Move the cursor, after Kafka's acknowledgement; `rules` is the run's admission policy.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, max_seconds=FEED_SECONDS) as connection:
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
