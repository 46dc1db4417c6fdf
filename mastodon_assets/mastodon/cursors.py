"""How far a timeline has been read: two functions on `masto.ingest_cursors`."""

from pydantic import SecretStr

from mastodon_assets.warehouse.database import transaction

PUBLIC = "public"


def read_cursor(postgres_url: SecretStr, instance: str) -> str | None:
    """The newest status id of the public timeline that Kafka has; None at a first start.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    with transaction(postgres_url) as connection:
        row = connection.execute(
            "SELECT last_acked_id FROM masto.ingest_cursors WHERE instance = %s AND source = %s",
            (instance, PUBLIC),
        ).fetchone()
    return None if row is None else str(row[0])


def save_cursor(postgres_url: SecretStr, instance: str, last_acked_id: str) -> None:
    """Move the cursor; call it after Kafka's acknowledgement.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    with transaction(postgres_url) as connection:
        connection.execute(
            """
            INSERT INTO masto.ingest_cursors (instance, source, last_acked_id, updated_at)
            VALUES (%s, %s, %s, now())
            ON CONFLICT (instance, source) DO UPDATE
               SET last_acked_id = excluded.last_acked_id, updated_at = excluded.updated_at
            """,
            (instance, PUBLIC, last_acked_id),
        )
