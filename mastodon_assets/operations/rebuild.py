"""The rebuild of the tables that derive from `toots_raw`.

What belongs here: how each table is rebuilt. Only rows that differ are written, in chunks that let
the stream in between. A rebuild that is interrupted continues when it is run again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import Connection

from mastodon_assets.batch.refresh import refresh_batch_table
from mastodon_assets.batch.tables import BATCH_TABLES
from mastodon_assets.config.settings import Settings
from mastodon_assets.stream.windows import rebuild_windows
from mastodon_assets.warehouse.daily import DAILY_SUMS, rebuild_daily
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.hourly import rebuild_hourly
from mastodon_assets.warehouse.locks import write_ranges
from mastodon_assets.warehouse.rollups import rebuild_rollups
from mastodon_assets.warehouse.tables import (
    DAILY,
    HOURLY,
    SENTIMENT_TOTALS,
    TOOT_METRICS_WINDOWED,
    TOOTS_SENTIMENT,
    USER_AVG_LENGTH_WINDOWED,
    Table,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

GetSession = Callable[[], "SparkSession"]
Report = Callable[[str], None]

_FIND_ORPHANED_SCORES = """
SELECT id FROM masto.toots_sentiment s
 WHERE NOT EXISTS (SELECT FROM masto.toots_raw r WHERE r.id = s.id)
"""
_DELETE_ORPHANED_SCORES = """
DELETE FROM masto.toots_sentiment s
 WHERE id = ANY(%s) AND NOT EXISTS (SELECT FROM masto.toots_raw r WHERE r.id = s.id)
"""


def rebuild(
    session: GetSession, settings: Settings, names: Sequence[str], report: Report
) -> Iterator[tuple[str, int]]:
    """Rebuild tables in the order in which they derive from each other.

    Args:
        session: Starts Spark, or returns the session; called only if a table needs it.
        settings: The settings.
        names: Names of tables in `REBUILDS`. After an hourly table its daily sums are rebuilt.
        report: Receives a line per step of the scoring.

    Yields:
        Each table with the number of rows that differed from what `toots_raw` says.

    Raises:
        ServiceUnavailableError: PostgreSQL or Spark does not answer.
        MissingTablesError: The database has no tables yet.
        ModelUnreadableError: The champion's folder is missing or damaged.
    """
    wanted = {*names, *(_DAILY_OF[name] for name in _DAILY_OF.keys() & names)}
    for name, rebuild_table in REBUILDS.items():
        if name in wanted:
            yield name, rebuild_table(session, settings, report)


def _windows(table: Table, _session: GetSession, settings: Settings, _report: Report) -> int:
    with transaction(settings.postgres_url) as connection:
        return rebuild_windows(connection, table)


def _batch(name: str, session: GetSession, settings: Settings, _report: Report) -> int:
    refreshed = refresh_batch_table(
        session,
        settings.postgres_url,
        name,
        min_toots=settings.activity_min_toots,
        rebuild=True,
    )
    return refreshed.rows_changed


def _sentiment(session: GetSession, settings: Settings, report: Report) -> int:
    """Score what has no score for its text, and delete the scores of posts that are gone."""
    from mastodon_assets.sentiment.scoring.score import score_pending

    with transaction(settings.postgres_url) as connection:
        orphans = _delete_orphaned_scores(connection)
        # Scoring updates the sums. They must be right before it, or the same rows count twice.
        rebuild_rollups(connection)
    return orphans + score_pending(session, settings, report, rebuild=True).scored


def _delete_orphaned_scores(connection: Connection[Any]) -> int:
    orphans = [id_ for (id_,) in connection.execute(_FIND_ORPHANED_SCORES)]
    connection.commit()
    deleted = 0

    def delete(first: int, last: int) -> None:
        nonlocal deleted
        deleted += connection.execute(_DELETE_ORPHANED_SCORES, (orphans[first:last],)).rowcount

    write_ranges(connection, len(orphans), delete)
    return deleted


def _totals(_session: GetSession, settings: Settings, _report: Report) -> int:
    with transaction(settings.postgres_url) as connection:
        return rebuild_rollups(connection)


def _hourly(table: Table, _session: GetSession, settings: Settings, report: Report) -> int:
    with transaction(settings.postgres_url) as connection:
        return rebuild_hourly(connection, table, report)


def _daily(table: Table, _session: GetSession, settings: Settings, _report: Report) -> int:
    with transaction(settings.postgres_url) as connection:
        return rebuild_daily(connection, table)


# Daily sums change by the difference to the hours that were stored, right or wrong.
_DAILY_OF = {daily.hourly.name: daily.sums.table.name for daily in DAILY_SUMS}
REBUILDS: dict[str, Callable[[GetSession, Settings, Report], int]] = {
    TOOT_METRICS_WINDOWED.name: partial(_windows, TOOT_METRICS_WINDOWED),
    USER_AVG_LENGTH_WINDOWED.name: partial(_windows, USER_AVG_LENGTH_WINDOWED),
    **{name: partial(_batch, name) for name in BATCH_TABLES},
    SENTIMENT_TOTALS.name: _totals,
    TOOTS_SENTIMENT.name: _sentiment,
    **{table.name: partial(_hourly, table) for table in HOURLY},
    **{table.name: partial(_daily, table) for table in DAILY},
}
