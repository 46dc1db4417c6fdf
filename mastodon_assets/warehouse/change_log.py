"""The change log, `masto.toot_changes`: rows of posts before and after each change.

What belongs here: which changes the log has, and removing those that every asset has read. The
merge writes the log, in the transaction of the change.
"""

from typing import Any

from psycopg import Connection

from mastodon_assets.warehouse.staging import with_staging
from mastodon_assets.warehouse.tables import BATCH, TOOTS_SENTIMENT
from mastodon_assets.warehouse.watermarks import bump_toots_version, set_watermark

# The assets that a refresh updates from the change log.
LOG_READERS = tuple(table.name for table in (*BATCH, TOOTS_SENTIMENT))

# Versions of other writers, and those whose changes were removed, are missing in the log.
_ARE_CHANGES_KNOWN = """
SELECT count(DISTINCT version) = %(to)s - %(since)s FROM masto.toot_changes
 WHERE version > %(since)s AND version <= %(to)s
"""
_LOG_NEW_LABELS = with_staging(
    """
INSERT INTO masto.toot_changes
       (version, toot_id, sign, event_at, length, lang, username, hashtags)
SELECT %s, id, sign, event_at, 0, '', '', '{{}}'
  FROM (SELECT DISTINCT ON ((event_at AT TIME ZONE 'UTC')::date) id, event_at
          FROM masto.toots_raw JOIN {staged_scores} USING (id)) labelled
 CROSS JOIN (VALUES (-1), (1)) signs (sign)
"""
)
_REMOVE_READ = """
DELETE FROM masto.toot_changes
 WHERE version <= (SELECT CASE WHEN count(*) = %s THEN min(toots_version) END
                     FROM masto.asset_progress WHERE asset = ANY(%s))
"""


def has_changes_since(connection: Connection[Any], *, since: int, to: int) -> bool:
    """Return whether the log has every change after version `since`, up to `to`."""
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
    """Set the watermark of one of `LOG_READERS`; remove the changes that all of them have read."""
    set_watermark(
        connection,
        asset,
        toots_version=toots_version,
        model_version=model_version,
        parameters=parameters,
    )
    connection.execute(_REMOVE_READ, (len(LOG_READERS), list(LOG_READERS)))


def log_new_labels(connection: Connection[Any]) -> int:
    """Record that posts of `STAGED_SCORES` got other labels; return the new version.

    Charts and files are then due. The posts did not change, so the log gets two rows per day that
    cancel each other: it stays complete, and names the days to check.
    """
    version = bump_toots_version(connection)
    connection.execute(_LOG_NEW_LABELS, (version,))
    return version


def clear_change_log(connection: Connection[Any]) -> int:
    """Empty the log, so that its readers rebuild; return the number of rows removed."""
    return connection.execute("DELETE FROM masto.toot_changes").rowcount


def changed_days(connection: Connection[Any]) -> list[Any]:
    """Return the days (UTC) of `event_at` of the logged rows, before and after."""
    return [
        day
        for (day,) in connection.execute(
            "SELECT DISTINCT (event_at AT TIME ZONE 'UTC')::date FROM masto.toot_changes"
        )
    ]
