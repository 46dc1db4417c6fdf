"""Data versions and watermarks: how often the posts changed, and which version an asset shows."""

from typing import Any

import psycopg


def toots_version(connection: psycopg.Connection[Any]) -> int:
    """Return the number of transactions that changed `toots_raw`."""
    row = connection.execute(
        "SELECT version FROM masto.data_versions WHERE dataset = 'toots_raw'"
    ).fetchone()
    assert row is not None, "migration 0001 inserts this row"
    return int(row[0])


def bump_toots_version(connection: psycopg.Connection[Any]) -> int:
    """Record that this transaction changes rows of `toots_raw`; the write lock must be held.

    Returns:
        The version after the change.
    """
    row = connection.execute(
        "UPDATE masto.data_versions SET version = version + 1, changed_at = now()"
        " WHERE dataset = 'toots_raw' RETURNING version"
    ).fetchone()
    assert row is not None, "migration 0001 inserts this row"
    return int(row[0])


def set_watermark(
    connection: psycopg.Connection[Any],
    asset: str,
    *,
    toots_version: int,
    model_version: str | None = None,
    parameters: str | None = None,
) -> None:
    """Record which data `asset` shows, in the transaction that writes its result."""
    connection.execute(
        """
        INSERT INTO masto.asset_progress AS p (asset, toots_version, model_version, parameters)
        VALUES (%s, %s, %s, %s)
        ON CONFLICT (asset) DO UPDATE
           SET toots_version = excluded.toots_version,
               model_version = excluded.model_version,
               parameters = excluded.parameters,
               updated_at = now()
         WHERE (p.toots_version, p.model_version, p.parameters)
               IS DISTINCT FROM
               (excluded.toots_version, excluded.model_version, excluded.parameters)
        """,
        (asset, toots_version, model_version, parameters),
    )
