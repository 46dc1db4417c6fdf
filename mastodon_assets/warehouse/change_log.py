"""The journal of changed toots, `masto.toot_changes`: who moves by it, and how far it reaches.

What belongs here: reading how far an asset has come, and forgetting what all have moved by. The
sink writes the journal, in the transaction of the change.
"""

from typing import Any

from psycopg import Connection

from mastodon_assets.warehouse.tables import BATCH, TOOTS_SENTIMENT
from mastodon_assets.warehouse.watermarks import set_watermark

# The assets that a refresh moves by what changed.
MOVED_ASSETS = tuple(table.name for table in (*BATCH, TOOTS_SENTIMENT))

# A version that another writer made, or whose changes were forgotten, is missing in the journal.
_ARE_CHANGES_KNOWN = """
SELECT count(DISTINCT version) = %(to)s - %(since)s FROM masto.toot_changes
 WHERE version > %(since)s AND version <= %(to)s
"""
_FORGET_DONE = """
DELETE FROM masto.toot_changes
 WHERE version <= (SELECT CASE WHEN count(*) = %s THEN min(toots_version) END
                     FROM masto.asset_progress WHERE asset = ANY(%s))
"""


def has_changes_since(connection: Connection[Any], *, since: int, to: int) -> bool:
    """Whether the journal has every change after version `since`, up to `to`."""
    known = connection.execute(_ARE_CHANGES_KNOWN, {"since": since, "to": to}).fetchone()
    return known == (True,)


def advance_watermark(
    connection: Connection[Any],
    asset: str,
    *,
    toots_version: int,
    model_version: str | None = None,
    parameters: str | None = None,
) -> None:
    """`set_watermark` of one of `MOVED_ASSETS`; what all of them have moved by is forgotten."""
    set_watermark(
        connection,
        asset,
        toots_version=toots_version,
        model_version=model_version,
        parameters=parameters,
    )
    connection.execute(_FORGET_DONE, (len(MOVED_ASSETS), list(MOVED_ASSETS)))


def forget_changes(connection: Connection[Any]) -> int:
    """Empty the journal; what was made from it is then made anew. Rows gone."""
    return connection.execute("DELETE FROM masto.toot_changes").rowcount


def changed_days(connection: Connection[Any]) -> list[Any]:
    """The days (dates, UTC) of `event_at` of what the journal holds, before and after."""
    return [
        day
        for (day,) in connection.execute(
            "SELECT DISTINCT (event_at AT TIME ZONE 'UTC')::date FROM masto.toot_changes"
        )
    ]
