"""Every table that derives from `toots_raw`, made anew from it.

What belongs here: which way each of them has. A table that is right is not written; readers see it
as it was until the new rows are there.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mastodon_assets.batch.refresh import refresh_batch_table
from mastodon_assets.batch.tables import BATCH_TABLES
from mastodon_assets.config.settings import Settings
from mastodon_assets.stream.windows import rebuild_windows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rollups import rebuild_rollups
from mastodon_assets.warehouse.tables import (
    SENTIMENT_TOTALS,
    TOOT_METRICS_WINDOWED,
    TOOTS_SENTIMENT,
    USER_AVG_LENGTH_WINDOWED,
    Table,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Session = Callable[[], "SparkSession"]
Report = Callable[[str], None]

_REMOVE_STRAY_SCORES = """
DELETE FROM masto.toots_sentiment s
 WHERE NOT EXISTS (SELECT FROM masto.toots_raw r WHERE r.id = s.id)
"""


def rebuild(
    session: Session, settings: Settings, names: Sequence[str], report: Report
) -> Iterator[tuple[str, int]]:
    """Make the tables `names` of `REBUILDS` anew, in the order in which they derive.

    Yields each with the rows that were not as `toots_raw` says. Raises: ServiceUnavailableError,
    MissingTablesError, ModelUnreadableError.
    """
    for name, make in REBUILDS.items():
        if name in names:
            yield name, make(session, settings, report)


def _windows(table: Table, _session: Session, settings: Settings, _report: Report) -> int:
    with transaction(settings.postgres_url) as connection:
        return rebuild_windows(connection, table)


def _batch(name: str, session: Session, settings: Settings, _report: Report) -> int:
    refreshed = refresh_batch_table(
        session,
        settings.postgres_url,
        name,
        min_toots=settings.activity_min_toots,
        rebuild=True,
    )
    return refreshed.rows_changed


def _sentiment(session: Session, settings: Settings, report: Report) -> int:
    """Scores that are missing, of another text, or of no toot; the champion's others stay."""
    from mastodon_assets.sentiment.scoring.score import score_pending

    with transaction(settings.postgres_url) as connection:
        take_write_lock(connection)
        strays = connection.execute(_REMOVE_STRAY_SCORES).rowcount
        # Scoring moves the sums; what was written beside them must not be moved twice.
        rebuild_rollups(connection)
    return strays + score_pending(session(), settings, report, rebuild=True).scored


def _totals(_session: Session, settings: Settings, _report: Report) -> int:
    with transaction(settings.postgres_url) as connection:
        return rebuild_rollups(connection)


REBUILDS: dict[str, Callable[[Session, Settings, Report], int]] = {
    TOOT_METRICS_WINDOWED.name: partial(_windows, TOOT_METRICS_WINDOWED),
    USER_AVG_LENGTH_WINDOWED.name: partial(_windows, USER_AVG_LENGTH_WINDOWED),
    **{name: partial(_batch, name) for name in BATCH_TABLES},
    SENTIMENT_TOTALS.name: _totals,
    TOOTS_SENTIMENT.name: _sentiment,
}
