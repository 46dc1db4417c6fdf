"""The refresh of the hourly tables as an asset: their numbers, and what these show.

What belongs here: the watermarks. What the tables contain is in `warehouse.hourly`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.hourly import (
    HourlyRefresh,
    hours_that_differ,
    next_hours,
    refresh_hours,
)
from mastodon_assets.warehouse.tables import HOURLY, HOURLY_HASHTAGS, HOURLY_SENTIMENT
from mastodon_assets.warehouse.watermarks import set_watermark, toots_version

# Their numbers are as old as the scores that they count.
_LABELLED = (HOURLY_SENTIMENT, HOURLY_HASHTAGS)
_CHECK = "hourly_tables_count_their_posts"
# Compared per refresh: as many as take a second. An hour of a busy server has 100,000 posts.
_HOURS_COMPARED, _POSTS_COMPARED = 168, 20_000
_FIRST = datetime(1, 1, 1, tzinfo=UTC)


def refresh_hourly_tables(postgres_url: SecretStr, report: Callable[[str], None]) -> HourlyRefresh:
    """Compute the changed hours, and record which posts and scores the tables then show.

    Args:
        postgres_url: The database.
        report: Receives a line every ten seconds.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The database is not migrated.
    """
    with transaction(postgres_url) as connection:
        with connection.transaction():
            version = toots_version(connection)
            scored_version, model = _scores(connection)
        refreshed = refresh_hours(connection, report=report)
        for table in HOURLY:
            is_labelled = table in _LABELLED
            set_watermark(
                connection,
                table.name,
                toots_version=min(version, scored_version) if is_labelled else version,
                model_version=model if is_labelled else None,
            )
    return refreshed


def compare_next_hours(
    postgres_url: SecretStr,
) -> tuple[list[datetime], dict[str, list[datetime]]]:
    """Compare the hours whose turn it is with posts, scores and deletes; the next follow next time.

    Hours that differ are compared again next time.

    Returns:
        The hours compared, and each table's hours that differ.
    """
    with transaction(postgres_url) as connection:
        with connection.transaction():
            row = connection.execute(
                "SELECT parameters FROM masto.asset_progress WHERE asset = %s", (_CHECK,)
            ).fetchone()
            after = datetime.fromisoformat(row[0]) if row else _FIRST
            hours, has_more = next_hours(
                connection, after, most=_HOURS_COMPARED, most_posts=_POSTS_COMPARED
            )
            version = toots_version(connection)
        differing = hours_that_differ(connection, hours)
        if not differing:
            last = hours[-1] if has_more else _FIRST
            set_watermark(connection, _CHECK, toots_version=version, parameters=last.isoformat())
    return hours, differing


def _scores(connection: Connection[Any]) -> tuple[int, str | None]:
    """Return the version of the posts that the scores show, and their model."""
    row = connection.execute(
        "SELECT toots_version, model_version FROM masto.asset_progress"
        " WHERE asset = 'toots_sentiment'"
    ).fetchone()
    return row or (0, None)
